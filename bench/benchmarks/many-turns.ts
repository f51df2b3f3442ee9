import type { BenchContext, Benchmark } from "../benchmark.ts";
import { toUsed, type CpuReading } from "../cpu-meter.ts";
import type { Load } from "../load.ts";
import { toCpuPer, toMeasure, type Bound } from "../measure.ts";
import { openRawTurn, openTurn } from "../open-turn.ts";
import type { StreamReading } from "../read-stream.ts";
import { alternate } from "../rounds.ts";
import { openService, type Service } from "../service.ts";
import { USER } from "../user.ts";

const ROUNDS = 3;
const FEW = 20;
const BUSY = 500;
const QUIET = 1_500;
const OPENED_AT_ONCE = 50;
/** Of a busy turn: 20 events a second, as a quick model writes. */
const INTERVAL_MS = 50;
const SECONDS = 5;
const CHUNKS = (SECONDS * 1_000) / INTERVAL_MS;
const BUSY_LOAD: Load = { chunks: CHUNKS, eventsPerChunk: 1, intervalMs: INTERVAL_MS, isHeld: true };
/** As many events and chunks in the same time as 500 turns have, in 20 turns. */
const DENSE = BUSY / FEW;
const DENSE_LOAD: Load = { ...BUSY_LOAD, chunks: CHUNKS * DENSE, intervalMs: INTERVAL_MS / DENSE };
/** A second event would come after the end of the benchmark. */
const QUIET_LOAD: Load = { chunks: 1, eventsPerChunk: 1, intervalMs: 600_000, isHeld: false };

/** Whether the cost of an event grows with the number of turns. The quiet turns are all at one of two services. */
export const manyTurns: Benchmark = {
  name: "many-turns",
  run: async (ctx) => {
    await using calm = await openSide(ctx);
    await using crowded = await openSide(ctx);
    await crowded.open(QUIET, QUIET_LOAD);
    const sides = {
      few: () => measure(calm, FEW, BUSY_LOAD),
      dense: () => measure(calm, FEW, DENSE_LOAD),
      many: () => measure(crowded, BUSY, BUSY_LOAD),
    };
    // The first round warms up the code and does not count.
    await alternate(sides, 1);
    ctx.log(`${BUSY + QUIET} turns, ${ROUNDS} rounds`);
    const { few, dense, many } = await alternate(sides, ROUNDS);
    const toRow = (against: string, baseline: CpuReading[], bound: Bound) =>
      toMeasure({
        measure: `event, ${BUSY + QUIET} turns of which ${BUSY} are busy`,
        unit: "µs",
        ours: toUs(many),
        baseline: toUs(baseline),
        against,
        bound,
        cpu: toCpuPer("event", 1, many),
      });
    return [
      toRow(`${FEW} turns of the same pace`, few, { kind: "ratio_at_most", times: 1.3 }),
      toRow(`${FEW} turns, as many events in all`, dense, { kind: "ratio_at_most", times: 1.3 }),
    ];
  },
};

const toUs = (readings: readonly CpuReading[]) => readings.map(({ program }) => program * 1_000);

interface Side extends AsyncDisposable {
  service: Service;
  /** Starts turns and reads them, half of them over the raw route. */
  open(count: number, load: Load): Promise<StreamReading[]>;
  /** Lets the engine begin with the turns that it holds. */
  release(streams: number): Promise<void>;
}

async function openSide(ctx: BenchContext): Promise<Side> {
  await using stack = new AsyncDisposableStack();
  const service = stack.use(await openService(ctx, { engine: "bench" }));
  const product = await service.openProduct();
  const { engine } = await product.client.api.engines.provision.mutate({ userId: USER });
  const { signal } = ctx;
  const turnContext = { service, product, signal };
  const opened = stack.move();
  return {
    service,
    open: async (count, load) => {
      const readings: StreamReading[] = [];
      while (readings.length < count) {
        const some = Array.from(
          { length: Math.min(OPENED_AT_ONCE, count - readings.length) },
          async (_, index) =>
            index % 2 === 0 ? openTurn(turnContext, load) : openRawTurn(turnContext, load),
        );
        const next = await Promise.all(some);
        await Promise.all(next.map((reading) => reading.opened));
        readings.push(...next);
      }
      return readings;
    },
    release: async (streams) => {
      const body = JSON.stringify({ streams });
      await fetch(`${engine.url ?? ""}/release`, { method: "POST", body, signal });
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

/** The CPU of one event, in milliseconds. */
async function measure(side: Side, turns: number, load: Load): Promise<CpuReading> {
  const readings = await side.open(turns, load);
  const from = await side.service.readCpu();
  await side.release(turns);
  const counts = await Promise.all(readings.map(({ ended }) => ended));
  const used = toUsed(from, await side.service.readCpu());
  const expected = load.chunks * load.eventsPerChunk;
  const wrong = counts.find((count) => count !== expected);
  if (wrong !== undefined) throw new Error(`a stream had ${wrong} events instead of ${expected}`);
  const events = turns * expected;
  return { program: used.program / events, postgres: used.postgres / events };
}
