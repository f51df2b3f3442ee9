import { expect, test } from "vitest";
import { insertTurn } from "../../../db/turns.ts";
import { ensureTurnPartitions } from "../../../db/turn-partitions.ts";
import { takeOverTurns } from "../../../server/turns/take-over/take-over-turns.ts";
import { completed, delta, numbered } from "../engine-double.ts";
import { openTurnWorld } from "../turn-world.ts";

const TURNS = 2_000;
const ENGINES = 20;
/** The limit of attempts at the same time. */
const AT_ONCE = 64;

test("two thousand turns of a dead owner go on, and only so many engines are asked at once", async () => {
  await using world = await openTurnWorld({ timing: { replayAnswerMs: 60_000 } });
  const { raw } = world.database;
  await ensureTurnPartitions(raw);
  const owner = crypto.randomUUID();
  const users = Array.from({ length: ENGINES }, (_, index) => `user-${index}`);
  const engines = await Promise.all(users.map(async (user) => world.addEngine(user)));
  const turnIds: string[] = [];
  for (let index = 0; index < TURNS; index += 1) {
    const engine = engines[index % ENGINES];
    if (engine === undefined) throw new Error("no engine");
    const turnId = crypto.randomUUID();
    turnIds.push(turnId);
    await insertTurn(raw, {
      productId: world.productId,
      turnId,
      userId: engine.userId,
      engineId: engine.engineId,
      generation: 1,
      taskId: turnId,
      fingerprint: "f",
      startedBy: null,
      ownerReplica: owner,
      fencingToken: 1,
      reservedSeq: 1024,
    });
  }
  await raw`update turns set status = 'streaming', last_seq = 1 where owner_replica = ${owner}`;
  await raw`
    insert into turn_events (product_id, turn_id, turn_started_at, first_seq, last_seq, events, engine_event_id)
    select product_id, id, started_at, 1, 1, '[{"seq":1,"at":"","type":"x","data":1}]', '7'
    from turns where owner_replica = ${owner}`;

  let asking = 0;
  let mostAsking = 0;
  world.engine.onReplay = (replay) => {
    expect(replay.lastEventId).toBe("7");
    asking += 1;
    mostAsking = Math.max(mostAsking, asking);
    setTimeout(() => {
      asking -= 1;
      replay.open();
      replay.response.end(numbered(8, delta("a")) + numbered(9, completed()));
    }, 5);
  };
  expect(await takeOverTurns(world.ctx, [owner])).toEqual({ taken: TURNS, ended: 0 });
  expect(world.ctx.turns.size).toBe(TURNS);
  await expect.poll(() => world.ctx.turns.size, { timeout: 240_000 }).toBe(0);
  const [ended] = await raw`
    select count(*)::integer as n from turns where status = 'completed' and last_seq = 4 and id = any(${turnIds}::uuid[])`;
  expect(ended).toEqual({ n: TURNS });
  expect(mostAsking).toBeGreaterThan(1);
  expect(mostAsking).toBeLessThanOrEqual(AT_ONCE);
  for (const { engineId } of engines) expect(world.holds.count(engineId)).toBe(0);
}, 300_000);
