import { expect, test } from "vitest";
import { EngineConnections } from "../../server/engine-contract/connections.ts";
import { callLateEngine } from "./call-late-engine.ts";
import { openLateEngine } from "./late-engine.ts";

test("none of 2,000 second answers is the answer to another call, also when many calls run at once", async () => {
  await using engine = await openLateEngine();
  await using connections = new EngineConnections();
  const callers = [250, 250, 250, 250, 1_000].map(async (calls) =>
    callLateEngine(connections, engine, calls),
  );
  expect((await Promise.all(callers)).flat()).toEqual([]);
  expect(engine.lateAnswers).toBe(2_000);
}, 300_000);
