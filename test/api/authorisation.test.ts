import { channel } from "node:diagnostics_channel";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CALLS, KEYS, NAMED, toAnswer, toScopes } from "../../docs/authorisation-table.ts";
import type { KeyName, Named, Need } from "../../docs/authorisation-table.ts";
import { appRouter } from "../../server/api/routers/router.ts";
import { type Api, openApi } from "./open-api.ts";
import { type Door, openDoor, send } from "./authorisation-door.ts";

interface Route {
  method: string | readonly string[];
  url: string;
}

const routes: string[] = [];
const noteRoutes = (message: unknown) => {
  const { fastify } = message as {
    fastify: { addHook(name: "onRoute", hook: (route: Route) => void): void };
  };
  fastify.addHook("onRoute", ({ method, url }) => {
    for (const one of [method].flat()) routes.push(`${one} ${url}`);
  });
};

let api: Api;
let door: Door;
beforeAll(async () => {
  channel("fastify.initialization").subscribe(noteRoutes);
  api = await openApi();
  channel("fastify.initialization").unsubscribe(noteRoutes);
  door = await openDoor(api);
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});

test("the table has a row for every procedure and every route, and no other row", () => {
  const served = routes.filter((route) => !route.startsWith("HEAD ") && !route.includes("/trpc/"));
  const procedures = Object.keys(appRouter._def.procedures);
  expect(served.length).toBeGreaterThan(5);
  expect(Object.keys(CALLS).sort()).toEqual([...procedures, ...served].sort());
  const wires = routes.filter((route) => route.includes("/trpc/")).map((route) => route.split(" ")[1]);
  // One route serves all procedures, and two have routes of their own for their larger bodies.
  expect(new Set(wires)).toEqual(new Set(["/trpc/:path", "/trpc/turns.execute", "/trpc/turns.start"]));
});

/** Calls that cannot succeed here. Their own reason shows that the caller was admitted. */
const OWN_REASONS: Readonly<Record<string, string>> = { "fleet.acceptRuntime": "RUNTIME_UNCHANGED" };

interface Cell {
  call: string;
  need: Need;
  key: KeyName;
  named: Named;
}

function toExpected({ call, need, key, named }: Cell): string {
  const answer = toAnswer(need, key, named);
  if (answer === "allowed") return OWN_REASONS[call] ?? "ok";
  if (answer !== "elsewhere") return answer;
  const [, elsewhere] = CALLS[call] ?? [];
  return elsewhere === "own" ? "ok" : (elsewhere ?? "");
}

/** The keys of one cell: for `lacking`, one key for each scope of the call. */
function toKeys({ need, key }: Cell): (string | undefined)[] {
  const scopes = toScopes(need);
  if (key === "lacking") return scopes.map((scope) => door.lacking(scope));
  return [key === "enough" ? door.withScopes(scopes) : door.keys[key]];
}

async function walk(call: string): Promise<string[]> {
  const [need = "nothing"] = CALLS[call] ?? [];
  // The routes and procedures without a key take no product.
  const names: readonly Named[] = need === "nothing" ? ["none"] : NAMED;
  const cells = (Object.keys(KEYS) as KeyName[]).flatMap((key) =>
    names.map((named): Cell => ({ call, need, key, named })),
  );
  const check = async (cell: Cell): Promise<string[]> => {
    const expected = toExpected(cell);
    const wrong: string[] = [];
    for (const key of toKeys(cell)) {
      if (!isRefused(cell)) await door.prepare(call);
      const found = await send(door, { call, key, named: cell.named });
      if (found !== expected) wrong.push(`${cell.key}, product ${cell.named}: ${found} and not ${expected}`);
    }
    return wrong;
  };
  const refused = await Promise.all(cells.filter(isRefused).map(check));
  const admitted: string[] = [];
  for (const cell of cells.filter((one) => !isRefused(one))) admitted.push(...(await check(cell)));
  return [...refused.flat(), ...admitted];
}

/** Refused calls change nothing, so they are sent at the same time. */
function isRefused({ need, key, named }: Cell): boolean {
  return !["allowed", "elsewhere"].includes(toAnswer(need, key, named));
}

test.each(Object.keys(CALLS))("%s answers each kind of key as the table says", async (call) => {
  expect(await walk(call)).toEqual([]);
});
