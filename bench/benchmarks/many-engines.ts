import { openDatabase } from "../../db/client.ts";
import { toCpuPer, toMeasure } from "../measure.ts";
import type { Benchmark } from "../benchmark.ts";
import { openService, type Product, type Service } from "../service.ts";
import { median } from "../statistics.ts";
import { timePairs, type PairsRound } from "../time-pairs.ts";
import { USER } from "../user.ts";

const FEW = 100;
const MANY = 100_000;
const ROUNDS = 5;
const PAIRS = 400;
const WARM_UP_ROUNDS = 2;
const PAGE = 100;

/** Two services with databases of their own: in one, a product has a hundred engines, in the other a hundred thousand. */
export const manyEngines: Benchmark = {
  name: "many-engines",
  run: async (ctx) => {
    await using few = await openService(ctx, { engine: "bench" });
    await using many = await openService(ctx, { engine: "bench" });
    const small = await openProduct(few, FEW);
    const large = await openProduct(many, MANY);
    ctx.log(`a product of ${FEW} engines and one of ${MANY}`);
    const pairs = { pairs: PAIRS, rounds: ROUNDS, warmUpRounds: WARM_UP_ROUNDS, service: many };
    const admits = await timePairs(ctx, {
      ...pairs,
      what: `${PAIRS} admits`,
      ours: async () => time(async () => admitAny(large, MANY)),
      baseline: async () => time(async () => admitAny(small, FEW)),
    });
    const deep = await findDeepCursor(large);
    const list = async (cursor?: string) => large.client.api.engines.list.query({ limit: PAGE, cursor });
    const pages = await timePairs(ctx, {
      ...pairs,
      what: `${PAIRS} pages`,
      ours: async () => time(async () => list(deep)),
      baseline: async () => time(async () => list()),
    });
    return [
      toRatio(admits, `engines.admit, p50, ${MANY} engines`, `${FEW} engines`, 1.1),
      toRatio(pages, `engines.list, p50, a page deep in ${MANY} engines`, "the first page", 1.2),
    ];
  },
};

/** Copies the row of a real engine, for a host that no reconciler works for. */
async function openProduct(service: Service, engines: number): Promise<Product> {
  const product = await service.openProduct();
  await product.client.api.engines.provision.mutate({ userId: USER });
  await using database = openDatabase({ url: service.databaseUrl, poolSize: 2, applicationName: "bench" });
  const { raw } = database;
  await raw`
    insert into engines (id, product_id, user_id, desired, desired_by, status, spec, spec_hash, volume_name, runtime_host,
      endpoint, incarnation, generation, key_hash, key_sealed, key_prefix, next_check_at, created_at, updated_at)
    select gen_random_uuid(), product_id, 'user-' || n, desired, desired_by, status, spec, spec_hash,
      volume_name || n, 'bench', endpoint, incarnation, generation, key_hash, key_sealed, key_prefix, next_check_at,
      created_at, updated_at
    from engines, generate_series(1, ${engines - 1}::int) as n where product_id = ${product.productId}`;
  await raw`analyze engines`;
  return product;
}

async function admitAny({ client }: Product, engines: number): Promise<void> {
  const userId = `user-${1 + Math.floor(Math.random() * (engines - 1))}`;
  const { admitted } = await client.api.engines.admit.mutate({ userId });
  if (!admitted) throw new Error(`the engine of ${userId} was not admitted`);
}

/** Of a page that nine tenths of the list come before. */
async function findDeepCursor({ client }: Product): Promise<string> {
  let cursor: string | undefined;
  for (let passed = 0; passed < MANY * 0.9; passed += 1_000) {
    const { nextCursor } = await client.api.engines.list.query({ limit: 1_000, cursor });
    cursor = nextCursor ?? undefined;
  }
  if (cursor === undefined) throw new Error("the list ended before its last tenth");
  return cursor;
}

function toRatio(rounds: readonly PairsRound[], measure: string, against: string, times: number) {
  return toMeasure({
    measure,
    unit: "ms",
    ours: rounds.map(({ ours }) => median(ours)),
    baseline: rounds.map(({ baseline }) => median(baseline)),
    against,
    bound: { kind: "ratio_at_most", times },
    cpu: toCpuPer(
      "call",
      PAIRS,
      rounds.map(({ cpu }) => cpu),
    ),
  });
}

async function time(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}
