import type { Db } from "../../db/client.ts";
import { countEngines, listEngineRows } from "../../db/engines.ts";
import { findProduct, lockProduct, markProductRemoved } from "../../db/products.ts";
import type { IdempotencyRecord } from "../idempotency/idempotency-record.ts";
import { appendAudit } from "../audit/append-audit.ts";
import type { BaseContext, CallContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import type { KeyStates } from "../keys/key-states.ts";
import { productNotFound } from "./product-view.ts";

export interface RemoveProductInput {
  productId: string;
  destroyEngines: boolean;
  /** Destroys that user's engine; resolves for one that is gone already. */
  destroyEngine(userId: string): Promise<void>;
  idempotency: IdempotencyRecord;
}

export interface RemovedProduct {
  productId: string;
  removed: true;
}

/**
 * The removal is on record first: from then on its keys are refused and nothing new is provisioned, so what is left
 * to destroy only shrinks. When that is cut short, the same call goes on with it, and so does `finishRemovals`.
 *
 * Throws PRODUCT_NOT_FOUND, PRODUCT_NOT_EMPTY, and what `destroyEngine` throws.
 */
export async function removeProduct(
  ctx: Pick<BaseContext, "db"> & { keyStates: KeyStates } & CallContext,
  input: RemoveProductInput,
): Promise<RemovedProduct> {
  const begun = await ctx.db.transaction(async (tx) => markRemoved(ctx, tx, input));
  ctx.keyStates.clear();
  if (!begun) await assertUnfinished(ctx, input);
  await destroyAllEngines(ctx, input);
  return { productId: input.productId, removed: true };
}

/** False when there is no live product. */
async function markRemoved(ctx: CallContext, tx: Db, input: RemoveProductInput): Promise<boolean> {
  const { productId } = input;
  await input.idempotency.setSubject(tx, productId);
  const product = await lockProduct(tx, productId);
  if (product === undefined) return false;
  const engineCount = await countEngines(tx, productId);
  if (engineCount > 0 && !input.destroyEngines) throw notEmpty(engineCount);
  await markProductRemoved(tx, productId);
  if (engineCount === 0) await input.idempotency.complete(tx, { productId, removed: true });
  await appendAudit(tx, {
    scope: "platform",
    actor: ctx.actor,
    action: "product.removed",
    requestId: ctx.requestId,
    metadata: { productId, slug: product.slug, engineCount },
  });
  return true;
}

/** A removed product is as if absent, unless this call has something left to do for it. */
async function assertUnfinished(ctx: Pick<BaseContext, "db">, input: RemoveProductInput): Promise<void> {
  const product = await findProduct(ctx.db, input.productId);
  if (product === undefined) throw productNotFound();
  if (input.idempotency.resumed && input.idempotency.subject === input.productId) return;
  if (product.engineCount === 0) throw productNotFound();
  if (!input.destroyEngines) throw notEmpty(product.engineCount);
}

const AT_ONCE = 4;

/** Engines are destroyed a few at a time: the runtime has other work too. */
export async function destroyAllEngines(
  ctx: Pick<BaseContext, "db">,
  input: Pick<RemoveProductInput, "productId" | "destroyEngine">,
): Promise<void> {
  let afterId: string | undefined;
  for (;;) {
    const rows = await listEngineRows(ctx.db, { productId: input.productId, afterId, limit: AT_ONCE });
    if (rows.length === 0) return;
    const results = await Promise.allSettled(rows.map(async (row) => input.destroyEngine(row.userId)));
    for (const result of results) if (result.status === "rejected") throw result.reason;
    afterId = rows.at(-1)?.id;
  }
}

function notEmpty(engineCount: number): DomainError {
  return new DomainError(
    "PRODUCT_NOT_EMPTY",
    `the product still has ${engineCount} engine(s): destroy them first, or say destroyEngines: true`,
  );
}
