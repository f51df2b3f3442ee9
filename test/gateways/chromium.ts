import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { chromium, type Page } from "playwright-core";
import { openTempDir } from "../support/temp-dir.ts";
import { BROWSER_TYPES } from "./recorded-source.ts";

const PAGE_FILE = join(import.meta.dirname, "..", "..", "examples", "page.html");
const ARGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** A page that never closes its EventSource, and notes what it gets. */
const FOLLOWER = `<!doctype html><title>follower</title><script type="module">
const seen = { seqs: [], types: [], errors: 0, isClosed: false };
window.seen = seen;
const source = new EventSource(new URLSearchParams(location.search).get("follow"));
const note = ({ type, lastEventId }) => { seen.seqs.push(Number(lastEventId)); seen.types.push(type); };
for (const type of ${JSON.stringify(BROWSER_TYPES)}) source.addEventListener(type, note);
source.addEventListener("error", () => { seen.errors += 1; seen.isClosed = source.readyState === EventSource.CLOSED; });
</script>`;

export interface Seen {
  seqs: number[];
  types: string[];
  errors: number;
  isClosed: boolean;
}

export interface Browser extends AsyncDisposable {
  /** Opens a page of the gateway's origin that follows this address. */
  follow(url: string): Promise<{ seen(): Promise<Seen>; statuses(): readonly number[] }>;
  /** Opens the examples' page, as if the product's site served it. */
  openPage(
    gatewayUrl: string,
    query: Readonly<Record<string, string>>,
  ): Promise<{ textOf(selector: string): Promise<string | null>; screenshot(): Promise<void> }>;
}

/** Chromium without a window, with an empty profile of its own. */
export async function openChromium(executablePath: string): Promise<Browser> {
  await using stack = new AsyncDisposableStack();
  const profile = stack.use(await openTempDir());
  const context = await chromium.launchPersistentContext(profile.path, { executablePath, args: ARGS });
  stack.defer(async () => context.close());
  const example = await readFile(PAGE_FILE, "utf8");
  const openAt = async (url: URL, html: string): Promise<Page> => {
    const page = await context.newPage();
    await page.route(
      ({ pathname }) => pathname === "/page",
      async (route) => route.fulfill({ contentType: "text/html", body: html }),
    );
    await page.goto(url.href);
    return page;
  };
  const opened = stack.move();
  return {
    follow: async (url) => {
      const statuses: number[] = [];
      context.on("response", (response) => {
        if (response.url() === url) statuses.push(response.status());
      });
      const page = await openAt(toPage(url, { follow: url }), FOLLOWER);
      return { seen: async () => page.evaluate<Seen>("window.seen"), statuses: () => statuses };
    },
    openPage: async (gatewayUrl, query) => {
      const page = await openAt(toPage(gatewayUrl, query), example);
      return {
        textOf: async (selector) => page.textContent(selector),
        screenshot: async () => {
          const path = process.env["SCREENSHOT"];
          if (path !== undefined) await page.screenshot({ path });
        },
      };
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

function toPage(gatewayUrl: string, query: Readonly<Record<string, string>>): URL {
  const url = new URL("/page", gatewayUrl);
  url.search = new URLSearchParams(query).toString();
  return url;
}
