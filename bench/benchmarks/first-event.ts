import { createParser, type EventSourceMessage } from "eventsource-parser";
import type { BenchContext, Benchmark } from "../benchmark.ts";
import type { Load } from "../load.ts";
import { toCpuPer, toMeasure, type Bound, type Measure } from "../measure.ts";
import { openService, type Product, type ServiceInput } from "../service.ts";
import { quantile } from "../statistics.ts";
import { timePairs } from "../time-pairs.ts";
import { USER } from "../user.ts";

const ROUNDS = 5;
const PAIRS = 100;
const WARM_UP_ROUNDS = 12;
const LOAD: Load = { chunks: 1, eventsPerChunk: 1, intervalMs: 0, isHeld: false };
const PACE = { direct: true, reference: { words: 3, delayMs: 5 } };

/**
 * The time to the first event, through the service and directly, with three engines:
 *
 * - The reference engine at the pace of a fast model, one word every 5 ms. It does little before its first event.
 * - The same engine without pauses. Its forty events in two milliseconds keep the CPU from the readers on both ways.
 * - The bench engine, which answers at once. Only the relay is left, so the ratio to almost zero means nothing, and the
 *   added time counts.
 */
export const firstEvent: Benchmark = {
  name: "first-event",
  run: async (ctx) => {
    const paced = await timeEngine(ctx, { engine: "reference", request: PACE });
    const hurried = await timeEngine(ctx, { engine: "reference", request: {} });
    const instant = await timeEngine(ctx, { engine: "bench", request: { load: LOAD } });
    return [
      toEventMeasure("first event, p50", paced, { kind: "ratio_at_most", times: 2.5 }),
      toEventMeasure("first event, added, p50", paced, { kind: "added_at_most", amount: 5 }),
      toEventMeasure("first event of a hurried engine, p50", hurried, { kind: "none" }),
      toEventMeasure("first event of a hurried engine, added", hurried, {
        kind: "added_at_most",
        amount: 5,
      }),
      toEventMeasure("first event of an instant engine, p50", instant, { kind: "none" }),
      toEventMeasure("first event of an instant engine, added", instant, {
        kind: "added_at_most",
        amount: 5,
      }),
    ];
  },
};

function toEventMeasure(measure: string, timed: Timed, bound: Bound): Measure {
  return toMeasure({ ...timed, measure, unit: "ms", against: "the engine called directly", bound });
}

interface Timed {
  ours: number[];
  baseline: number[];
  cpu: Measure["cpu"];
}

interface Case extends ServiceInput {
  /** Fields of the request, besides the message. */
  request: object;
}

async function timeEngine(ctx: BenchContext, { engine: kind, request }: Case): Promise<Timed> {
  await using service = await openService(ctx, { engine: kind });
  const product = await service.openProduct();
  const { engine, apiKey } = await product.client.api.engines.provision.mutate({ userId: USER });
  const direct = { url: engine.url ?? "", apiKey };
  const rounds = await timePairs(ctx, {
    service,
    what: `${PAIRS} turns, ${kind} engine`,
    pairs: PAIRS,
    rounds: ROUNDS,
    warmUpRounds: WARM_UP_ROUNDS,
    ours: async () => timeTurn(product, request),
    baseline: async () => timeDirect(direct, request),
  });
  const readings = rounds.map(({ cpu }) => cpu);
  return {
    ours: rounds.map(({ ours }) => quantile(ours, 0.5)),
    baseline: rounds.map(({ baseline }) => quantile(baseline, 0.5)),
    cpu: toCpuPer("turn", PAIRS, readings),
  };
}

async function timeTurn({ client }: Product, fields: object): Promise<number> {
  const begin = performance.now();
  const request = { ...fields, message: "go", taskId: crypto.randomUUID() };
  let tookMs: number | undefined;
  for await (const _event of client.execute({ userId: USER, request })) {
    tookMs ??= performance.now() - begin;
  }
  if (tookMs === undefined) throw new Error("the turn had no event");
  return tookMs;
}

// Reads as a caller without our client would. No signal: each fetch makes a long-lived signal slower.
async function timeDirect(engine: { url: string; apiKey: string }, fields: object): Promise<number> {
  const begin = performance.now();
  const response = await fetch(`${engine.url}/execute`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-engine-key": engine.apiKey },
    body: JSON.stringify({ ...fields, message: "go", task_id: crypto.randomUUID() }),
  });
  if (response.status !== 200) throw new Error(`the engine answered ${response.status}`);
  let tookMs: number | undefined;
  const onEvent = ({ data }: EventSourceMessage) => {
    JSON.parse(data);
    tookMs ??= performance.now() - begin;
  };
  const parser = createParser({ onEvent });
  const decoder = new TextDecoder();
  for await (const chunk of response.body ?? []) parser.feed(decoder.decode(chunk, { stream: true }));
  if (tookMs === undefined) throw new Error("the engine sent no event");
  return tookMs;
}
