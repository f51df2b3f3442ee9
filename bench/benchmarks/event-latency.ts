import type { Benchmark } from "../benchmark.ts";
import { readSharedClock, TIME_MARK, toExecuteBody, type Load } from "../load.ts";
import { toMeasure, type Bound, type Measure } from "../measure.ts";
import { openRawTurn, openTurn } from "../open-turn.ts";
import { readStream, type StreamReading } from "../read-stream.ts";
import { alternate } from "../rounds.ts";
import { openService } from "../service.ts";
import { quantile } from "../statistics.ts";
import { USER } from "../user.ts";

const ROUNDS = 5;
const STREAMS = 20;
const LOAD: Load = { chunks: 100, eventsPerChunk: 1, intervalMs: 20, isHeld: true, isTimed: true };
const P50_MAX_MS = 1.5;
const P99_MAX_MS = 10;
const TIMED = new RegExp(`${TIME_MARK}(\\d+)`, "g");

/**
 * The time from an engine's write of an event to the moment when its reader has it, at a calm pace, for readers on the
 * owner. The baseline is a byte pipe, which takes one hop less than the service can.
 */
export const eventLatency: Benchmark = {
  name: "event-latency",
  run: async (ctx) => {
    await using service = await openService(ctx, { engine: "bench" });
    const product = await service.openProduct();
    const { engine } = await product.client.api.engines.provision.mutate({ userId: USER });
    const engineUrl = engine.url ?? "";
    const pipe = await service.openBaseline("byte-pipe", { BENCH_ENGINE_URL: engineUrl });
    const { signal } = ctx;

    const time = async (open: (onPiece: (text: string) => void) => Promise<StreamReading>) => {
      const times: number[] = [];
      const onPiece = (text: string) => {
        const now = readSharedClock();
        for (const [, sentAt] of text.matchAll(TIMED)) times.push(now - Number(sentAt) / 1_000);
      };
      const readings = await Promise.all(Array.from({ length: STREAMS }, async () => open(onPiece)));
      await Promise.all(readings.map(({ opened }) => opened));
      const body = JSON.stringify({ streams: STREAMS });
      await fetch(`${engineUrl}/release`, { method: "POST", body, signal });
      await Promise.all(readings.map(({ ended }) => ended));
      const expected = STREAMS * LOAD.chunks;
      // An event whose time is split between two pieces is not timed.
      if (times.length < expected * 0.99) throw new Error(`${times.length} of ${expected} events were timed`);
      return times;
    };
    const sides = {
      pipe: () => time(async (onPiece) => readPiped(pipe.url, { onPiece, signal })),
      ours: () => time((onPiece) => openTurn({ service, product, signal, onPiece }, LOAD)),
      raw: () => time(async (onPiece) => openRawTurn({ service, product, signal, onPiece }, LOAD)),
    };
    // The first round warms up the code and does not count.
    await alternate(sides, 1);
    ctx.log(`${STREAMS} streams, ${ROUNDS} rounds`);
    const { pipe: piped, ours, raw } = await alternate(sides, ROUNDS);
    const toRow = (measure: string, rounds: readonly number[][], q: number, bound: Bound): Measure =>
      toMeasure({
        measure,
        unit: "ms",
        ours: rounds.map((times) => quantile(times, q)),
        baseline: piped.map((times) => quantile(times, q)),
        against: "raw byte pipe",
        bound,
      });
    const p50: Bound = { kind: "at_most", amount: P50_MAX_MS };
    const p99: Bound = { kind: "at_most", amount: P99_MAX_MS };
    return [
      toRow("event, engine to reader, p50", ours, 0.5, p50),
      toRow("event, engine to reader, p99", ours, 0.99, p99),
      toRow("the same over the raw route, p50", raw, 0.5, p50),
      toRow("the same over the raw route, p99", raw, 0.99, p99),
    ];
  },
};

async function readPiped(
  url: string,
  { onPiece, signal }: { onPiece: (text: string) => void; signal: AbortSignal },
): Promise<StreamReading> {
  return readStream({ url: `${url}/execute`, method: "POST", body: toExecuteBody(LOAD), signal, onPiece });
}
