import { readdir } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { openCutProxy, type CutProxy } from "../../demo/cut-proxy.ts";
import type { BenchContext } from "../benchmark.ts";
import { openService, type Product, type Service } from "../service.ts";
import { numbersItsEvents, readSent, type EngineAccess, type Sent } from "./read-sent.ts";
import { readByClient, readByEventSource, readByRawRoute, type SoakTurn } from "./readers.ts";
import { Tally } from "./tally.ts";
import type { Footprint, ReadTurn, SoakResult } from "./verdict.ts";

export interface SoakInput {
  seconds: number;
  /** From 0 to 1, the next value of each call. The same seed makes the same choices, though not the same moments. */
  random: () => number;
}

/** Turns that are live at the same time. When one has ended, the next begins. */
const TURNS_AT_ONCE = 500;
const ENGINES = 4;
const PROXIES = 8;
/** The first turns begin within this share of the time. */
const RAMP = 0.1;
/** Up to this share of the time the service is killed. The rest is the life of its last process, whose memory is measured. */
const KILLS_UNTIL = 0.45;
/** By then as many turns are live as before the last kill, and their readers are back. */
const MEASURED_FROM = 0.55;
const KILL_PAUSE_MS: Span = [4_000, 12_000];
const CUT_PAUSE_MS: Span = [400, 1_600];
const SAMPLE_MS = 2_000;
const WORDS: Span = [20, 120];
const DELAY_MS: Span = [200, 900];
/** No turn is longer than this share of the time, so that many begin and end in a short run, too. */
const LONGEST_TURN = 0.2;
/** For the turns that are live when the time is over. */
const END_PATIENCE_MS = 180_000;

type Span = readonly [from: number, to: number];

interface SoakContext extends SoakInput {
  bench: BenchContext;
  service: Service;
  product: Product;
  proxies: readonly CutProxy[];
  beganAt: number;
  /** Aborts when everything must be over. */
  signal: AbortSignal;
}

/** Turns with readers whose connections are cut at random, at a service that is killed at random. */
export async function soak(bench: BenchContext, input: SoakInput): Promise<SoakResult> {
  await using stack = new AsyncDisposableStack();
  const service = stack.use(await openService(bench, { engine: "reference", isCrashed: true }));
  const product = await service.openProduct();
  const engines = await openEngines(product);
  const isNumbered = await numbersItsEvents(engines[0] ?? { url: "", apiKey: "" });
  const proxies = await Promise.all(Array.from({ length: PROXIES }, () => openCutProxy(service.url)));
  for (const proxy of proxies) stack.use(proxy);
  const timeout = AbortSignal.timeout(input.seconds * 1_000 + END_PATIENCE_MS);
  const signal = AbortSignal.any([bench.signal, timeout]);
  const ctx: SoakContext = { ...input, bench, service, product, proxies, signal, beganAt: performance.now() };
  bench.log(`${TURNS_AT_ONCE} turns at a time for ${input.seconds} s`);

  const turns: ReadTurn[] = [];
  const playing = playTurns(ctx, turns);
  const [cuts, { kills, footprints }] = await Promise.all([cut(ctx, playing), killAndMeasure(ctx), playing]);
  bench.signal.throwIfAborted();
  const sent = new Map<string, Sent>();
  for (const engine of engines) for (const [task, one] of await readSent(engine)) sent.set(task, one);
  return { turns, sent, isNumbered, cuts, kills, footprints, seconds: input.seconds };
}

async function openEngines({ client }: Product): Promise<EngineAccess[]> {
  const users = Array.from({ length: ENGINES }, (_, index) => toUser(index));
  return Promise.all(
    users.map(async (userId) => {
      const { engine, apiKey } = await client.api.engines.provision.mutate({ userId });
      return { url: engine.url ?? "", apiKey };
    }),
  );
}

const toUser = (index: number) => `user-${index % ENGINES}`;
const passed = ({ beganAt, seconds }: SoakContext) => (performance.now() - beganAt) / (seconds * 1_000);

async function pause({ random, signal }: SoakContext, span: Span): Promise<void> {
  // An abort ends the pause early, and its caller sees it.
  await sleep(choose(random, span), undefined, { signal }).catch(() => undefined);
}

function choose(random: () => number, [from, to]: Span): number {
  return Math.round(from + random() * (to - from));
}

async function playTurns(ctx: SoakContext, turns: ReadTurn[]): Promise<void> {
  const lanes = Array.from({ length: TURNS_AT_ONCE }, async (_, lane) => {
    await pause(ctx, [0, ctx.seconds * 1_000 * RAMP]);
    while (passed(ctx) < 1 && !ctx.signal.aborted) turns.push(await playTurn(ctx, lane));
  });
  await Promise.all(lanes);
}

/** One turn, with the reader that starts it and, for each second lane, another one that follows it. */
async function playTurn(ctx: SoakContext, lane: number): Promise<ReadTurn> {
  const { random, signal, product, seconds } = ctx;
  const delayMs = choose(random, DELAY_MS);
  const longest = Math.max(1, Math.floor((seconds * 1_000 * LONGEST_TURN) / delayMs));
  const turn: SoakTurn = {
    turnId: crypto.randomUUID(),
    taskId: crypto.randomUUID(),
    userId: toUser(lane),
    words: Math.min(longest, choose(random, WORDS)),
    delayMs,
  };
  const tallies = [new Tally()];
  const context = (tally: Tally) => ({
    url: ctx.proxies[Math.floor(random() * PROXIES)]?.url ?? "",
    apiKey: product.apiKey,
    turn,
    tally,
    signal,
  });
  const start = lane % 4 < 2 ? readByClient : readByRawRoute;
  const [first] = tallies;
  const starting = first && start(context(first));
  if (first !== undefined && lane % 2 === 0) {
    // Before the turn is known, an EventSource would be refused for good.
    while (first.lastSeq === 0 && !first.hasEnded && first.trouble === undefined) await sleep(100);
    if (first.lastSeq > 0) {
      const follower = new Tally();
      tallies.push(follower);
      await readByEventSource(context(follower));
    }
  }
  await starting;
  return { taskId: turn.taskId, tallies };
}

/** Cuts all connections of a proxy, again and again, until the turns are over. Returns how many connections there were. */
async function cut(ctx: SoakContext, playing: Promise<void>): Promise<number> {
  const over = new AbortController();
  const stop = () => over.abort();
  playing.then(stop, stop);
  let cuts = 0;
  while (!over.signal.aborted && !ctx.signal.aborted) {
    await pause(ctx, CUT_PAUSE_MS);
    cuts += ctx.proxies[Math.floor(ctx.random() * PROXIES)]?.cut() ?? 0;
  }
  return cuts;
}

async function killAndMeasure(ctx: SoakContext): Promise<{ kills: number; footprints: Footprint[] }> {
  let kills = 0;
  while (passed(ctx) < RAMP && !ctx.signal.aborted) await pause(ctx, [200, 200]);
  while (passed(ctx) < KILLS_UNTIL && !ctx.signal.aborted) {
    await pause(ctx, KILL_PAUSE_MS);
    if (passed(ctx) >= KILLS_UNTIL) break;
    await ctx.service.crash();
    kills += 1;
    ctx.bench.log(`killed the service, ${Math.round(passed(ctx) * ctx.seconds)} s`);
  }
  while (passed(ctx) < MEASURED_FROM && !ctx.signal.aborted) await pause(ctx, [200, 200]);
  const footprints: Footprint[] = [];
  while (passed(ctx) < 1 && !ctx.signal.aborted) {
    footprints.push(await measure(ctx.service));
    await pause(ctx, [SAMPLE_MS, SAMPLE_MS]);
  }
  return { kills, footprints };
}

async function measure(service: Service): Promise<Footprint> {
  const { heap } = await service.readMemory();
  const descriptors = await readdir(`/proc/${service.pid}/fd`);
  return { heapBytes: heap, descriptors: descriptors.length };
}
