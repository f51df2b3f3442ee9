import * as fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { appRouter } from "../../server/api/routers/router.ts";
import { type Api, openApi } from "../api/open-api.ts";
import { fire, fireRaw, isTrouble, rawShots, shots } from "./hostile-shots.ts";
import { judgeReply } from "./judge-reply.ts";
import { type FireSite, openFireSite, PROCEDURE_INPUTS } from "./procedure-inputs.ts";

/** For each procedure. For all procedures together there are more than 2,000. */
const CASES = 70;

let api: Api;
let site: FireSite;
beforeAll(async () => {
  api = await openApi();
  site = await openFireSite(api);
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});

// The record is flat and keyed by path, although its type says otherwise.
const procedures = appRouter._def.procedures as unknown as Readonly<
  Record<string, { _def: { type: "query" | "mutation" | "subscription"; inputs: unknown[] } }>
>;

/** The fields of a procedure's input schema, also if it is optional or has a default. */
function fieldsOf(schema: unknown): string[] {
  if (schema instanceof z.ZodObject) return Object.keys(schema.shape);
  if (schema instanceof z.ZodPrefault || schema instanceof z.ZodOptional) return fieldsOf(schema.unwrap());
  throw new Error("the input schema is not an object");
}

test("the table of inputs has every procedure with all of its fields", () => {
  expect(Object.keys(PROCEDURE_INPUTS).sort()).toEqual(Object.keys(procedures).sort());
  for (const [path, toInput] of Object.entries(PROCEDURE_INPUTS)) {
    const fields = fieldsOf(procedures[path]?._def.inputs.at(-1));
    expect(Object.keys(toInput(site).input), path).toEqual(expect.arrayContaining(fields));
  }
});

test.each(Object.keys(PROCEDURE_INPUTS))(
  "for any damaged input, %s answers with a result or a listed reason",
  async (path) => {
    await fc.assert(
      fc.asyncProperty(shots, async (one) => fire({ url: api.url, site }, path, one)),
      { numRuns: CASES },
    );
    expect({}).not.toHaveProperty("polluted");
    expect(api.logged.filter(isTrouble)).toEqual([]);
    expect((await api.query("engines.get", { key: site.key, input: { userId: "ada" } })).status).toBe(200);
  },
);

test("for any damaged path, query, header or body, a raw route answers with a result or a listed reason", async () => {
  await fc.assert(
    fc.asyncProperty(rawShots, async (one) => fireRaw({ url: api.url, site }, one)),
    { numRuns: CASES },
  );
  expect(api.logged.filter(isTrouble)).toEqual([]);
});

/** Nearly valid positions for a cursor: ids, instants and numbers that no row has or can have. */
const positions = fc.oneof(
  fc.uuid(),
  fc.stringMatching(/^[0-9a-f-]{36}$/),
  fc.stringMatching(/^[1-9][0-9]{0,17}$/),
  fc
    .record({
      date: fc.oneof(
        fc.stringMatching(/^[0-9]{4}-[0-9]{2}-[0-9]{2}$/),
        fc.constantFrom("2026-02-30", "0000-01-01", "9999-12-31", "2026-11-23"),
      ),
      time: fc.oneof(
        fc.stringMatching(/^[0-9]{2}:[0-9]{2}:[0-9]{2}$/),
        fc.constantFrom("24:00:00", "23:59:60", "00:00:00.999999", "12:00:00"),
      ),
      id: fc.uuid(),
    })
    .map(({ date, time, id }) => `${date} ${time}+00/${id}`),
  fc.string({ unit: "binary" }),
);

test.each(["engines.list", "turns.list", "products.list", "platformKeys.list", "audit.list"])(
  "any cursor of %s is a position in the list, or refused",
  async (path) => {
    const { key, input } = PROCEDURE_INPUTS[path]?.(site) ?? { key: "", input: {} };
    const list = async (position: string) => {
      const cursor = Buffer.from(position).toString("base64url");
      const reply = await api.query(path, { key, input: { ...input, cursor } });
      judgeReply(reply);
    };
    await fc.assert(fc.asyncProperty(positions, list), { numRuns: CASES });
  },
);
