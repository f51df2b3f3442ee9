import { setImmediate as nextLoop } from "node:timers/promises";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startTurn, type StartTurnInput } from "../../../server/turns/start/start-turn.ts";
import { takeOverTurns } from "../../../server/turns/take-over/take-over-turns.ts";
import { completed, numbered, sse, started, type Call } from "../engine-double.ts";
import { openTurnWorld, readAll, type TurnProcess, type TurnWorld } from "../turn-world.ts";

let world: TurnWorld;
beforeAll(async () => {
  world = await openTurnWorld({ timing: { replayAnswerMs: 60_000, brokenMs: 20 } });
});
afterAll(async () => world[Symbol.asyncDispose]());

type Step =
  /** The engine sends so many events of that size. */
  | { do: "send"; count: number; size: number }
  /** The log gets everything. */
  | { do: "commit" }
  /** The owner is killed, and the next one takes over. */
  | { do: "kill" }
  /** The owner's connection to the engine breaks. */
  | { do: "cut" };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("send" as const),
      count: fc.integer({ min: 1, max: 600 }),
      size: fc.constantFrom(1, 40, 9_000),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("commit" as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("kill" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("cut" as const) }) },
);

/** An engine with one turn. It numbers the events, and sends them to each reader that is connected. */
class NumberingEngine {
  readonly #events: string[] = [];
  readonly #readers = new Set<Call>();
  #hasEnded = false;

  get count(): number {
    return this.#events.length;
  }

  connect(call: Call, afterId: number): void {
    call.open();
    call.response.write(this.#events.slice(afterId).join("") || ": nothing yet\n\n");
    if (this.#hasEnded) call.end();
    else this.#readers.add(call);
  }

  send(event: string): void {
    const text = numbered(this.#events.length + 1, event);
    this.#events.push(text);
    for (const reader of this.#readers) reader.response.write(text);
  }

  end(): void {
    this.send(completed());
    this.#hasEnded = true;
    for (const reader of this.#readers) reader.end();
  }

  cut(): void {
    for (const reader of this.#readers) reader.destroy();
    this.#readers.clear();
  }
}

test("whatever is sent, committed, cut and killed, each reader gets each event once and in order, up to the end", async () => {
  const steps = fc.array(step, { minLength: 1, maxLength: 10 });
  await fc.assert(fc.asyncProperty(steps, play), { numRuns: 12 });
}, 300_000);

async function play(steps: Step[]): Promise<void> {
  const engine = new NumberingEngine();
  world.engine.onCall = (call) => engine.connect(call, 0);
  world.engine.onReplay = (replay) => engine.connect(replay, Number(replay.lastEventId));
  let owner = world.openProcess();
  const input = world.input();
  await startTurn(owner.ctx, input);
  engine.send(started());
  const loggedAll = async () => expect.poll(async () => loggedSeq(input), { interval: 5 }).toBe(engine.count);
  // Without an event on record, nobody could tell that the engine numbers its events.
  await loggedAll();
  const dead = new Set<TurnProcess>();
  const readers = [0, 1].map(async () => readToEnd(input, { findOwner: () => owner, dead }));
  for (const one of steps) {
    switch (one.do) {
      case "send":
        for (let index = 0; index < one.count; index += 1) engine.send(toEvent(engine.count + 1, one.size));
        await nextLoop();
        break;
      case "commit":
        await loggedAll();
        break;
      case "kill": {
        const next = world.openProcess();
        dead.add(owner);
        await owner.kill();
        await takeOverTurns(next.ctx, [owner.replicaId]);
        owner = next;
        break;
      }
      case "cut":
        engine.cut();
        break;
    }
  }
  engine.end();
  const all = Array.from({ length: engine.count }, (_, index) => index + 1);
  for (const { seqs, numbers, end } of await Promise.all(readers)) {
    expect(seqs).toEqual(all);
    expect(numbers).toEqual(all.slice(1, -1));
    expect(end).toMatchObject({ status: "completed", lastSeq: engine.count + 1 });
  }
  expect(world.engine.calls.filter((call) => call.body["task_id"] === input.request.taskId)).toHaveLength(1);
}

const toEvent = (number: number, size: number) => sse("text_delta", { number, text: "x".repeat(size) });

async function loggedSeq({ turnId }: StartTurnInput): Promise<number> {
  const [row] = await world.database.raw<{ last: number }[]>`
    select last_seq::float8 as last from turns where id = ${turnId}`;
  return row?.last ?? 0;
}

/** Reads at the present owner. When that one dies, at the next one, after the last event. */
async function readToEnd(
  input: StartTurnInput,
  { findOwner, dead }: { findOwner: () => TurnProcess; dead: ReadonlySet<TurnProcess> },
) {
  const seqs: number[] = [];
  const numbers: number[] = [];
  for (;;) {
    const owner = findOwner();
    const { ctx } = owner;
    try {
      const { end } = await readAll(ctx, input, {
        afterSeq: seqs.at(-1) ?? 0,
        signal: AbortSignal.timeout(240_000),
        stop: ({ batches }) => {
          const batch = batches.at(-1);
          expect(batch?.gap).toBeUndefined();
          for (const line of batch?.events ?? []) {
            const event = JSON.parse(line) as { seq: number; data: { number?: number } };
            seqs.push(event.seq);
            if (event.data.number !== undefined) numbers.push(event.data.number);
          }
          return false;
        },
      });
      return { seqs, numbers, end };
    } catch (error) {
      // Only a dead owner may fail its readers.
      if (!dead.has(owner)) throw error;
      await expect.poll(() => dead.has(findOwner()), { interval: 5 }).toBe(false);
    }
  }
}
