import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { openServiceProcess, type ServiceProcess } from "../client/service-process.ts";
import {
  isRegistryUnreachable,
  OLD_NODES,
  OLD_TYPESCRIPT,
  openConsumer,
  type Consumer,
} from "./open-consumer.ts";

const NODES = [...OLD_NODES, process.versions.node];
/** The expected result of the right calls. */
const RIGHT = {
  status: "running",
  text: expect.stringMatching(/^This is message 1 /),
  endStatus: "completed",
  hasConfig: true,
  generation: 1,
  revision: expect.stringMatching(/^[0-9]+$/),
  turns: 1,
  reasons: ["ENGINE_NOT_FOUND", "ENGINE_NOT_FOUND"],
  served: [
    200,
    expect.stringMatching(/^retry: 1000\n\nid: [0-9]+\nevent: enginehouse.end\ndata: .*\n\n$/),
    204,
  ],
};
const MAX_BUNDLE_BYTES = 64 * 1024;

/** Runs the right calls of the module that its first argument names, and prints their result. */
const CALLER = `
const [calls, url, key, userId] = process.argv.slice(2);
const { makeRightCalls } = await import(calls);
console.log(JSON.stringify(await makeRightCalls(url, key, userId)));
`;

/** All tests share one installation. They are skipped if no registry answers. */
describe("the client as a package", () => {
  const opened = new AsyncDisposableStack();
  let consumer: Consumer | undefined;
  let service: ServiceProcess;
  let apiKey: string;
  let compileErrors: string;

  beforeAll(async () => {
    // Otherwise npm and the compilers leave a cache in the temporary directory.
    vi.stubEnv("NODE_DISABLE_COMPILE_CACHE", "1");
    // Wait for both, even if one fails, so that both are closed in the end.
    const outcomes = await Promise.allSettled([install(), startService()]);
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  }, 600_000);
  afterAll(async () => {
    vi.unstubAllEnvs();
    await opened.disposeAsync();
  });
  beforeEach(({ skip }) => {
    skip(consumer === undefined, "no npm registry answers");
  });

  async function install() {
    consumer = await openConsumerIfAny();
    if (consumer === undefined) return;
    opened.use(consumer);
    compileErrors = await consumer.compile("current", { module: "nodenext" });
    await writeFile(join(consumer.directory, "caller.js"), CALLER);
  }

  async function startService() {
    service = opened.use(await openServiceProcess());
    await service.start();
    const product = await service.openProduct("packaged");
    product.client.close();
    apiKey = product.apiKey;
  }

  function installed(): Consumer {
    if (consumer === undefined) throw new Error("nothing is installed");
    return consumer;
  }

  async function expectRightCalls(node: string, calls: string) {
    const userId = `${calls.replaceAll(/\W/g, "")}-${node}`;
    const seen = JSON.parse(
      await installed().run(node, ["caller.js", calls, service.url, apiKey, userId]),
    ) as {
      [Count in "seqs" | "subscribed" | "lastSeq"]: number;
    };
    expect(seen).toMatchObject(RIGHT);
    expect(seen.seqs).toBeGreaterThan(10);
    // The subscription delivers as many events as execute. The end has a sequence number too.
    expect([seen.subscribed, seen.lastSeq]).toEqual([seen.seqs, seen.seqs + 1]);
  }

  test("in an empty project right calls compile, wrong calls do not, and no type is `any`", () => {
    expect(compileErrors).toBe("");
  });

  test(`the calls also compile with TypeScript ${OLD_TYPESCRIPT} and with the resolution of bundlers`, async () => {
    expect(await installed().compile("old", { module: "nodenext", noEmit: true })).toBe("");
    expect(await installed().compile("current", { module: "preserve", noEmit: true })).toBe("");
  });

  test("the package has the client and the declarations it needs, and no code of the server", async () => {
    const directory = join(installed().directory, "node_modules", "@enginehouse", "client");
    const paths = await readdir(directory, { recursive: true, withFileTypes: true });
    const files = paths.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
    const names = files.map((file) => file.slice(directory.length + 1));
    expect(names).toEqual(
      expect.arrayContaining(["LICENSE", "README.md", "package.json", "client/index.js"]),
    );
    expect(
      names.filter((name) => !/^(client|server)\/.*\.d\.ts$|^client\/[\w-]+\.js$|^[\w.]+$/.test(name)),
    ).toEqual([]);
    for (const file of files.filter((name) => name.endsWith(".d.ts"))) {
      const code = (await readFile(file, "utf8")).replaceAll(/\/\*.*?\*\//gs, "");
      expect(code, file).not.toMatch(/\bany\b/);
    }
  });

  test.each(NODES)(
    "the right calls run on Node %s against a live service, and leave nothing open",
    async (node) => {
      await expectRightCalls(node, "./out/right-calls.js");
    },
  );

  test("the bundle for browsers is small and works", async () => {
    const { directory } = installed();
    const options = {
      bundle: true,
      minify: true,
      platform: "browser",
      format: "esm",
      target: "es2022",
    } as const;
    // A page does not serve browsers, so a bundler drops the part for gateways.
    const contents = 'export { createClient, EnginehouseError, findReason } from "@enginehouse/client";';
    const imports = { contents, resolveDir: directory };
    const { outputFiles } = await build({ ...options, stdin: imports, write: false });
    const [bundle] = outputFiles.map(({ contents }) => contents);
    if (bundle === undefined) throw new Error("nothing was bundled");
    console.log(
      `the client for a browser: ${toKb(bundle.length)} KB, ${toKb(gzipSync(bundle).length)} KB gzipped`,
    );
    expect(bundle.length).toBeLessThan(MAX_BUNDLE_BYTES);
    await build({
      ...options,
      entryPoints: [join(directory, "calls", "right-calls.ts")],
      outfile: join(directory, "bundle.js"),
    });
    await expectRightCalls(process.versions.node, "./bundle.js");
  });
});

async function openConsumerIfAny(): Promise<Consumer | undefined> {
  try {
    return await openConsumer();
  } catch (error) {
    if (!isRegistryUnreachable(error) || process.env["REQUIRE_REGISTRY"] === "1") throw error;
    console.warn(
      "No npm registry answers: the client cannot be installed as a package, its tests are skipped.",
    );
    return undefined;
  }
}

function toKb(bytes: number): string {
  return (bytes / 1024).toFixed(1);
}
