import type { Db } from "../../db/client.ts";
import { countEngines, listEngineRows } from "../../db/engines.ts";
import { findProduct, lockProduct, markProductRemoved } from "../../db/products.ts";
import { findEarlierWork } from "../idempotency/find-earlier-work.ts";
import type { IdempotencyRecord } from "../idempotency/idempotency-record.ts";
import { appendAudit } from "../audit/append-audit.ts";
import type { BaseContext, CallContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import type { KeyStates } from "../keys/key-states.ts";
import type { Keyring } from "../keys/keyring.ts";
import { isProductAuthentic, toProductMac } from "./product-mac.ts";
import { productNotFound } from "./product-view.ts";

export interface RemoveProductInput {
  productId: string;
  destroyEngines: boolean;
  /** Destroys a user's engine. Resolves if the user has none. */
  destroyEngine(engine: { productId: string; userId: string }): Promise<void>;
  idempotency: IdempotencyRecord;
}

/**
 * Records the removal first. From then on the product's keys are refused and nothing new is provisioned, so the engines
 * left to destroy only get fewer. If a removal is cut short, the same call or `finishRemovals` continues it. Throws
 * PRODUCT_NOT_FOUND, PRODUCT_NOT_EMPTY, and what `destroyEngine` throws.
 */
export async function removeProduct(
  ctx: Pick<BaseContext, "db"> & { keyStates: KeyStates; keyring: Keyring } & CallContext,
  input: RemoveProductInput,
): Promise<{ productId: string; removed: true }> {
  await ctx.db.transaction(async (tx) => recordRemoval(ctx, tx, input));
  ctx.keyStates.clear();
  await destroyAllEngines(ctx, input);
  return { productId: input.productId, removed: true };
}

async function recordRemoval(
  ctx: CallContext & { keyring: Keyring },
  tx: Db,
  input: RemoveProductInput,
): Promise<void> {
  const { productId } = input;
  await input.idempotency.setSubject(tx, productId);
  const product = await lockProduct(tx, productId);
  if (product === undefined) return assertUnfinished(tx, input);
  const engineCount = await countEngines(tx, productId);
  if (engineCount > 0 && !input.destroyEngines) throw notEmpty(engineCount);
  // A product whose row does not verify is removed too, and its row still does not verify after that.
  const removed = { ...product, deletedAt: "now" };
  const mac = isProductAuthentic(ctx.keyring, product) ? toProductMac(ctx.keyring, removed) : product.mac;
  await markProductRemoved(tx, { id: productId, mac });
  if (engineCount === 0) await input.idempotency.complete(tx, { productId, removed: true });
  await appendAudit(tx, {
    scope: "platform",
    actor: ctx.actor,
    action: "product.removed",
    requestId: ctx.requestId,
    metadata: { productId, slug: product.slug, engineCount },
  });
}

/** A removed product counts as absent, unless this call resumes its removal or has engines of it to destroy. */
async function assertUnfinished(tx: Db, input: RemoveProductInput): Promise<void> {
  if ((await findEarlierWork(input.idempotency, async (productId) => productId)) !== undefined) return;
  const product = await findProduct(tx, input.productId);
  if (product === undefined || product.engineCount === 0) throw productNotFound();
  if (!input.destroyEngines) throw notEmpty(product.engineCount);
}

const AT_ONCE = 4;

/** Destroys a few engines at a time, because the runtime has other work too. */
export async function destroyAllEngines(
  ctx: Pick<BaseContext, "db">,
  { productId, destroyEngine }: Pick<RemoveProductInput, "productId" | "destroyEngine">,
): Promise<void> {
  let afterId: string | undefined;
  for (;;) {
    const rows = await listEngineRows(ctx.db, { productId, afterId, limit: AT_ONCE });
    if (rows.length === 0) return;
    const results = await Promise.allSettled(
      rows.map(async ({ userId }) => destroyEngine({ productId, userId })),
    );
    for (const result of results) if (result.status === "rejected") throw result.reason;
    afterId = rows.at(-1)?.id;
  }
}

function notEmpty(engineCount: number): DomainError {
  const message = `the product still has ${engineCount} engine(s): destroy them first, or pass destroyEngines: true`;
  return new DomainError("PRODUCT_NOT_EMPTY", message);
}
