import * as fc from "fast-check";
import { appRouter } from "../../server/api/routers/router.ts";
import { damageInput, type Damage, damages } from "./hostile-json.ts";
import { judgeReply, judgeStream } from "./judge-reply.ts";
import { type FireSite, PROCEDURE_INPUTS } from "./procedure-inputs.ts";

/** Far more than any of these calls needs, so a call that takes longer hangs. */
const PATIENCE_MS = 20_000;

// The record is flat and keyed by path, although its type says otherwise.
const procedures = appRouter._def.procedures as unknown as Readonly<
  Record<string, { _def: { type: "query" | "mutation" | "subscription" } } | undefined>
>;

export interface Target {
  url: string;
  site: FireSite;
}

interface Shot {
  damages: Damage[];
  byQuery: boolean;
}

export const shots: fc.Arbitrary<Shot> = fc.record({ damages, byQuery: fc.boolean() });

/** Calls the procedure with a damaged input. Throws unless it answers with a result or a listed reason. */
export async function fire({ url, site }: Target, path: string, shot: Shot): Promise<void> {
  const { key, input } = PROCEDURE_INPUTS[path]?.(site) ?? { key: "", input: {} };
  const text = damageInput(input, shot.damages);
  const type = procedures[path]?._def.type;
  const isGet = type === "subscription" || (type === "query" && shot.byQuery);
  const query = isGet ? `?input=${encodeURIComponent(text.toWellFormed())}` : "";
  await judge(`${url}/trpc/${path}${query}`, { key, ...(!isGet && { method: "POST", body: text }) });
}

/** The raw routes: the good body, and whether the path names a turn or a user. */
const ROUTES = [
  {
    method: "POST",
    path: "/v1/engines/ID/execute",
    body: { message: "hi", task_id: "t", media: [], direct: true },
  },
  { method: "GET", path: "/v1/turns/ID/events", body: undefined },
  { method: "POST", path: "/v1/turns/ID/cancel", body: {} },
  {
    method: "POST",
    path: "/v1/turns/ID/respond",
    body: { request_id: "r", answer: "yes", content_blocks: [{}] },
  },
] as const;

const idText = fc.oneof(fc.constant("good"), fc.string({ unit: "binary", maxLength: 200 }), fc.uuid());
const headerText = fc.stringMatching(/^[\x21-\x7e]{0,60}$/);

export const rawShots = fc.record({
  route: fc.constantFrom(...ROUTES),
  damages,
  id: idText,
  query: fc.dictionary(fc.constantFrom("product", "expectGeneration", "lastEventId", "x", ""), fc.string(), {
    maxKeys: 2,
  }),
  headers: fc.dictionary(fc.constantFrom("idempotency-key", "last-event-id", "x-request-id"), headerText, {
    maxKeys: 3,
  }),
});

/** Calls a raw route with a damaged path, query, header or body. */
export async function fireRaw(
  { url, site }: Target,
  shot: typeof rawShots extends fc.Arbitrary<infer T> ? T : never,
) {
  const { method, path, body } = shot.route;
  const good = path.startsWith("/v1/turns") ? site.turnId : "ada";
  const id = shot.id === "good" ? good : encodeURIComponent(shot.id.toWellFormed());
  const names = Object.entries(shot.query).map(([name, value]): [string, string] => [
    name,
    value.toWellFormed(),
  ]);
  const query = new URLSearchParams(names).toString();
  await judge(`${url}${path.replace("ID", () => (id === "" ? "%20" : id))}?${query}`, {
    key: site.key,
    method,
    headers: shot.headers,
    ...(body !== undefined && { body: damageInput(body, shot.damages) }),
  });
}

async function judge(url: string, { key, headers, ...init }: RequestInit & { key: string }): Promise<void> {
  const response = await fetch(url, {
    ...init,
    headers: { ...(headers as object), authorization: `Bearer ${key}`, "content-type": "application/json" },
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const text = await response.text();
  if (response.status === 204) return;
  if (response.headers.get("content-type")?.startsWith("text/event-stream")) judgeStream(text);
  else judgeReply({ status: response.status, text });
}

/** A provision may answer before its engine has booted, and the engine's streams are shorter than the contract says. */
const EXPECTED = [
  '"provision answered before the boot ended"',
  "an engine's stream did not begin with thread_lifecycle",
];
export const isTrouble = (line: string) =>
  /"level":"(?:error|warn)"/.test(line) && !EXPECTED.some((message) => line.includes(message));
