import * as fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Api, openApi } from "../api/open-api.ts";
import { fire, fireRaw, isTrouble, rawShots, shots } from "./hostile-shots.ts";
import { type FireSite, openFireSite, PROCEDURE_INPUTS } from "./procedure-inputs.ts";

/** 20,000 cases in all: the same number for each procedure, and for the raw routes together. */
const PATHS = Object.keys(PROCEDURE_INPUTS);
const CASES = Math.ceil(20_000 / (PATHS.length + 1));

let api: Api;
let site: FireSite;
beforeAll(async () => {
  api = await openApi();
  site = await openFireSite(api);
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});

async function expectHealthy(): Promise<void> {
  expect({}).not.toHaveProperty("polluted");
  expect(api.logged.filter(isTrouble)).toEqual([]);
  expect((await api.query("engines.get", { key: site.key, input: { userId: "ada" } })).status).toBe(200);
}

test.each(PATHS)(
  "for any of many damaged inputs, %s answers with a result or a listed reason",
  async (path) => {
    const property = fc.asyncProperty(shots, async (one) => fire({ url: api.url, site }, path, one));
    await fc.assert(property, { numRuns: CASES });
    await expectHealthy();
  },
);

test("for any of many damaged requests, a raw route answers with a result or a listed reason", async () => {
  const property = fc.asyncProperty(rawShots, async (one) => fireRaw({ url: api.url, site }, one));
  await fc.assert(property, { numRuns: CASES });
  await expectHealthy();
});
