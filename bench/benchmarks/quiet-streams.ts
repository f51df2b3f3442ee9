import type { BenchContext, Benchmark } from "../benchmark.ts";
import type { Load } from "../load.ts";
import { toMeasure, type Bound } from "../measure.ts";
import { followRawTurn, followTurn, openTurn, startTurn } from "../open-turn.ts";
import type { Memory } from "../probe.ts";
import { readStream, type StreamReading } from "../read-stream.ts";
import { alternate } from "../rounds.ts";
import { openService, type Product, type Service } from "../service.ts";
import { USER } from "../user.ts";

const ROUNDS = 3;
const STREAMS = 2_000;
const RAW_STREAMS = 5_000;
const RAW_MAX_KB = 20;
/** Streams that are opened and closed first, so that compiled code and caches do not count. */
const WARM_UP = 100;
const AT_ONCE = 50;
const QUIET: Load = { chunks: 1, eventsPerChunk: 1, intervalMs: 0, isHeld: true };

/** The memory of each open stream that is quiet. Each round starts new processes, because memory is not given back. */
export const quietStreams: Benchmark = {
  name: "quiet-streams",
  run: async (ctx) => {
    ctx.log(`${ROUNDS} rounds of ${STREAMS} streams, ${RAW_STREAMS} of the raw route`);
    const results = await alternate(
      {
        idle: () => inNewService(ctx, measureIdle),
        readers: () => inNewService(ctx, measureReaders),
        turns: () => inNewService(ctx, measureTurns),
        raw: () => inNewService(ctx, measureRawReaders),
      },
      ROUNDS,
    );
    const about = { unit: "KB", against: "an idle tRPC subscription" };
    const toMemoryMeasure = (
      measure: string,
      side: "readers" | "turns" | "raw",
      part: keyof Memory,
      bound: Bound,
    ) =>
      toMeasure({
        ...about,
        measure,
        ours: results[side].map((memory) => memory[part]),
        baseline: results.idle.map((memory) => memory[part]),
        bound,
      });
    const atMost = { kind: "ratio_at_most", times: 1.3 } as const;
    return [
      toMemoryMeasure("heap per quiet reader of one turn", "readers", "heap", atMost),
      toMemoryMeasure("RSS per quiet reader of one turn", "readers", "rss", atMost),
      toMemoryMeasure("heap per quiet turn and its reader", "turns", "heap", atMost),
      toMemoryMeasure("RSS per quiet turn and its reader", "turns", "rss", { kind: "none" }),
      toMemoryMeasure("heap per quiet reader of the raw route", "raw", "heap", {
        kind: "at_most",
        amount: RAW_MAX_KB,
      }),
      toMemoryMeasure("RSS per quiet reader of the raw route", "raw", "rss", { kind: "none" }),
    ];
  },
};

interface StreamContext {
  service: Service;
  product: Product;
  engineUrl: string;
  signal: AbortSignal;
}

async function inNewService(
  ctx: BenchContext,
  measure: (context: StreamContext) => Promise<Memory>,
): Promise<Memory> {
  await using service = await openService(ctx, { engine: "bench" });
  const product = await service.openProduct();
  const { engine } = await product.client.api.engines.provision.mutate({ userId: USER });
  // Await here: otherwise the service would be disposed before the measurement.
  return await measure({ service, product, engineUrl: engine.url ?? "", signal: ctx.signal });
}

async function measureIdle({ service, product, engineUrl, signal }: StreamContext): Promise<Memory> {
  const idle = await service.openBaseline("plain-trpc", {
    BENCH_ENGINE_URL: engineUrl,
    BENCH_API_KEY: product.apiKey,
  });
  const headers = { accept: "text/event-stream", authorization: `Bearer ${product.apiKey}` };
  const open = async (left: AbortSignal) =>
    readStream({ url: `${idle.url}/trpc/idle?input=%7B%7D`, method: "GET", headers, signal: left });
  return measurePerStream(idle, open, { signal });
}

async function measureReaders({ service, product, signal }: StreamContext): Promise<Memory> {
  const turnId = await startTurn({ service, product, signal }, QUIET);
  return measurePerStream(service, async (left) => followTurn({ service, product, signal: left }, turnId), {
    signal,
  });
}

async function measureRawReaders({ service, product, signal }: StreamContext): Promise<Memory> {
  const turnId = await startTurn({ service, product, signal }, QUIET);
  const open = async (left: AbortSignal) => followRawTurn({ service, product, signal: left }, turnId);
  return measurePerStream(service, open, { signal, streams: RAW_STREAMS });
}

async function measureTurns({ service, product, signal }: StreamContext): Promise<Memory> {
  return measurePerStream(service, async (left) => openTurn({ service, product, signal: left }, QUIET), {
    signal,
  });
}

async function measurePerStream(
  program: Pick<Service, "readMemory">,
  open: (left: AbortSignal) => Promise<StreamReading>,
  { signal, streams = STREAMS }: { signal: AbortSignal; streams?: number },
): Promise<Memory> {
  const warmUp = await openMany(WARM_UP, open, signal);
  warmUp.leave();
  const before = await program.readMemory();
  const many = await openMany(streams, open, signal);
  const after = await program.readMemory();
  many.leave();
  const toKb = (part: keyof Memory) => (after[part] - before[part]) / streams / 1_024;
  return { rss: toKb("rss"), heap: toKb("heap") };
}

async function openMany(
  count: number,
  open: (left: AbortSignal) => Promise<StreamReading>,
  signal: AbortSignal,
): Promise<{ leave(): void }> {
  const left = new AbortController();
  const either = AbortSignal.any([left.signal, signal]);
  for (let opened = 0; opened < count; opened += AT_ONCE) {
    const streams = await Promise.all(Array.from({ length: AT_ONCE }, () => open(either)));
    await Promise.all(streams.map((stream) => stream.opened));
  }
  return { leave: () => left.abort() };
}
