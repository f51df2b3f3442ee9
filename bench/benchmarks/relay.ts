import type { BenchContext, Benchmark } from "../benchmark.ts";
import { toUsed, type CpuReading } from "../cpu-meter.ts";
import { toExecuteBody, type Load } from "../load.ts";
import { toCpuPer, toMeasure, type Bound, type Measure } from "../measure.ts";
import { readStream, type StreamReading } from "../read-stream.ts";
import { alternate } from "../rounds.ts";
import { openRawTurn, openTurn } from "../open-turn.ts";
import { openService, type Product, type Service } from "../service.ts";
import { USER } from "../user.ts";

interface RelayLoad extends Pick<Load, "chunks" | "eventsPerChunk"> {
  streams: number;
  rounds: number;
}

/** Every stream sends one chunk per interval. */
const INTERVAL_MS = 20;
const RELAY_50: RelayLoad = { streams: 50, eventsPerChunk: 20, chunks: 150, rounds: 5 };
const RELAY_200: RelayLoad = { streams: 200, eventsPerChunk: 1, chunks: 200, rounds: 5 };

export const relay50: Benchmark = {
  name: "relay-50",
  run: async (ctx) => {
    const relayed = await relay(ctx, RELAY_50);
    const name = "relayed event, 50 streams, 20 per chunk";
    const raw = "the same over the raw route";
    return [
      toRelayMeasure(relayed, { name, against: "pipe", bound: { kind: "ratio_at_most", times: 2.5 } }),
      toRelayMeasure(relayed, { name, against: "perEvent", bound: { kind: "cheaper_at_least", times: 3 } }),
      toRelayMeasure(relayed, {
        name: raw,
        side: "raw",
        against: "pipe",
        bound: { kind: "ratio_at_most", times: 2 },
      }),
      toRelayMeasure(relayed, {
        name: "the same with sealed content",
        side: "sealed",
        against: "ours",
        bound: SEALED_BOUND,
      }),
    ];
  },
};

export const relay200: Benchmark = {
  name: "relay-200",
  run: async (ctx) => {
    const relayed = await relay(ctx, RELAY_200);
    const name = "relayed event, 200 streams, 1 per chunk";
    const raw = "the same over the raw route";
    return [
      toRelayMeasure(relayed, { name, against: "pipe", bound: { kind: "ratio_at_most", times: 1.6 } }),
      toRelayMeasure(relayed, { name, against: "perEvent", bound: { kind: "none" } }),
      toRelayMeasure(relayed, {
        name: raw,
        side: "raw",
        against: "pipe",
        bound: { kind: "ratio_at_most", times: 1.4 },
      }),
      toRelayMeasure(relayed, {
        name: "the same with sealed content",
        side: "sealed",
        against: "ours",
        bound: SEALED_BOUND,
      }),
    ];
  },
};

const BASELINES = {
  pipe: "raw byte pipe",
  perEvent: "one tRPC yield per event",
  ours: "content that is not sealed",
};
const SEALED_BOUND: Bound = { kind: "ratio_at_most", times: 1.25 };

interface Relayed extends Record<keyof typeof BASELINES | "raw" | "sealed", CpuReading[]> {
  events: number;
}

interface RelayRow {
  name: string;
  /** By default the tRPC subscription. */
  side?: "ours" | "raw" | "sealed";
  against: keyof typeof BASELINES;
  bound: Bound;
}

function toRelayMeasure(
  { events, ...rounds }: Relayed,
  { name, side = "ours", against, bound }: RelayRow,
): Measure {
  const toUs = (readings: CpuReading[]) => readings.map(({ program }) => (program * 1_000) / events);
  return toMeasure({
    measure: name,
    unit: "µs",
    ours: toUs(rounds[side]),
    baseline: toUs(rounds[against]),
    against: BASELINES[against],
    bound,
    cpu: toCpuPer("event", events, rounds[side]),
  });
}

/** Measures the CPU from the moment when all streams are open and the engine is released, to the last stream's end. */
async function relay(ctx: BenchContext, relayLoad: RelayLoad): Promise<Relayed> {
  const { streams, rounds, ...sizes } = relayLoad;
  const load: Load = { ...sizes, intervalMs: INTERVAL_MS, isHeld: true };
  await using plain = await openSide(ctx, false);
  await using sealed = await openSide(ctx, true);
  const { service, product, engineUrl } = plain;
  const pipe = await service.openBaseline("byte-pipe", { BENCH_ENGINE_URL: engineUrl });
  const perEvent = await service.openBaseline("plain-trpc", {
    BENCH_ENGINE_URL: engineUrl,
    BENCH_API_KEY: product.apiKey,
  });
  const { signal } = ctx;
  const run = async (side: Side, open: () => Promise<StreamReading>, read: () => Promise<CpuReading>) => {
    const readings = await Promise.all(Array.from({ length: streams }, open));
    await Promise.all(readings.map(({ opened }) => opened));
    const from = await read();
    await fetch(`${side.engineUrl}/release`, { method: "POST", body: JSON.stringify({ streams }), signal });
    const counts = await Promise.all(readings.map(({ ended }) => ended));
    const used = toUsed(from, await read());
    const expected = load.chunks * load.eventsPerChunk;
    const wrong = counts.find((count) => count !== expected);
    if (wrong !== undefined) throw new Error(`a stream had ${wrong} events instead of ${expected}`);
    return used;
  };
  const runTurns = async (side: Side) => {
    const turnContext = { service: side.service, product: side.product, signal };
    return run(
      side,
      async () => openTurn(turnContext, load),
      async () => side.service.readCpu(),
    );
  };
  const sides = {
    pipe: () =>
      run(
        plain,
        () => readPiped(pipe.url, load, signal),
        () => service.readCpuOf(pipe),
      ),
    ours: async () => runTurns(plain),
    sealed: async () => runTurns(sealed),
    raw: () =>
      run(
        plain,
        async () => openRawTurn({ service, product, signal }, load),
        () => service.readCpu(),
      ),
    perEvent: () =>
      run(
        plain,
        () => readPlain(perEvent.url, { load, product, signal }),
        () => service.readCpuOf(perEvent),
      ),
  };
  // The first round of each side warms up the code and does not count.
  await alternate(sides, 1);
  ctx.log(`${streams} streams, ${rounds} rounds`);
  const results = await alternate(sides, rounds);
  return { events: streams * load.chunks * load.eventsPerChunk, ...results };
}

/** A service with one engine. */
interface Side extends AsyncDisposable {
  service: Service;
  product: Product;
  engineUrl: string;
}

async function openSide(ctx: BenchContext, sealTurns: boolean): Promise<Side> {
  const service = await openService(ctx, { engine: "bench", sealTurns });
  const product = await service.openProduct();
  const { engine } = await product.client.api.engines.provision.mutate({ userId: USER });
  const dispose = async () => service[Symbol.asyncDispose]();
  return { service, product, engineUrl: engine.url ?? "", [Symbol.asyncDispose]: dispose };
}

async function readPiped(url: string, load: Load, signal: AbortSignal): Promise<StreamReading> {
  return readStream({ url: `${url}/execute`, method: "POST", body: toExecuteBody(load), signal });
}

async function readPlain(
  url: string,
  { load, product, signal }: { load: Load; product: Product; signal: AbortSignal },
): Promise<StreamReading> {
  const input = encodeURIComponent(JSON.stringify({ body: toExecuteBody(load) }));
  return readStream({
    url: `${url}/trpc/relay?input=${input}`,
    method: "GET",
    headers: { accept: "text/event-stream", authorization: `Bearer ${product.apiKey}` },
    signal,
  });
}
