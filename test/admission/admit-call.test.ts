import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { NO_RECORD } from "../../server/idempotency/idempotency-record.ts";
import { EngineReads } from "../../server/engines/access/engine-reads.ts";
import { findShownEngines } from "../../db/shown-engines.ts";
import { RateLimits } from "../../server/admission/rate-limits.ts";
import { admitCall, type Access, type CallToAdmit } from "../../server/admission/admit-call.ts";
import type { Caller } from "../../server/keys/caller.ts";
import { removeProduct } from "../../server/products/remove-product.ts";
import { DrainState } from "../../server/replicas/drain-state.ts";
import { SCOPES } from "../../db/schema.ts";
import { addProduct, openPlatformContext, type PlatformContext } from "../support/platform-context.ts";

type Scope = (typeof SCOPES)[number];

const destroyEngine = async () => {};

let ctx: PlatformContext;
/** Products by what the tables call them. */
let products: Record<"own" | "other" | "removed", { productId: string; slug: string }>;

beforeAll(async () => {
  ctx = await openPlatformContext();
  const add = async () => (await addProduct(ctx, POLICY)).product;
  products = { own: await add(), other: await add(), removed: await add() };
  const { productId } = products.removed;
  await removeProduct(ctx, { productId, destroyEngines: false, destroyEngine, idempotency: NO_RECORD });
});
afterAll(async () => ctx?.[Symbol.asyncDispose]());

const POLICY = { maxOpenStreams: 7 };
const OPERATOR: Caller = {
  kind: "operator",
  keyId: "k1",
  name: "grace",
  actor: { kind: "operator", id: "k1", name: "grace" },
};
const toProductKey = (scopes: readonly Scope[]): Caller => ({
  kind: "platform_key",
  keyId: "k2",
  name: "gateway",
  productId: products.own.productId,
  policy: POLICY,
  scopes,
  actor: { kind: "platform_key", id: "k2", name: "gateway" },
});

interface Asked {
  access: Access;
  product?: string | undefined;
  beginsWork?: boolean;
  draining?: boolean;
}

function toContext(drain: DrainState) {
  const shownEngines = new EngineReads(async (users) => findShownEngines(ctx.db, users));
  return { db: ctx.db, keyring: ctx.keyring, drain, shownEngines, rateLimits: new RateLimits(ctx) };
}

/** What the caller is admitted to, or the reason of the refusal. */
async function admit(caller: Caller, { access, product, beginsWork = false, draining = false }: Asked) {
  const drain = new DrainState();
  if (draining) drain.begin();
  // One table drives all three overloads.
  const call = { access, product, beginsWork } as CallToAdmit<"operator">;
  return admitCall(toContext(drain), caller, call).catch((error: { reason: unknown }) => error.reason);
}

/** A column of the tables below: none, a product's slug, a product's id, or a name that no product has. */
const NAMED = {
  none: () => undefined,
  "own slug": () => products.own.slug,
  "other slug": () => products.other.slug,
  "other id": () => products.other.productId,
  "removed slug": () => products.removed.slug,
  "removed id": () => products.removed.productId,
  "unknown slug": () => "nowhere",
  "unknown id": () => randomUUID(),
} as const;
type Named = keyof typeof NAMED;
const EVERY_NAME = Object.keys(NAMED) as Named[];

describe.each(EVERY_NAME)("with the product named by: %s", (named) => {
  test.each(SCOPES)(
    "a platform key is admitted to a call of the scope %s exactly if it has that scope",
    async (scope) => {
      for (const scopes of [[], [scope], SCOPES.filter((other) => other !== scope), SCOPES]) {
        const { productId } = products.own;
        const allowed = scopes.includes(scope)
          ? { productId, policy: POLICY, idempotencyScope: productId }
          : "SCOPE_MISSING";
        const admitted = await admit(toProductKey(scopes), { access: [scope], product: NAMED[named]() });
        expect(admitted, scopes.join()).toEqual(named === "none" ? allowed : "INVALID_INPUT");
      }
    },
  );

  test("a platform key reads its own audit log with the scope read", async () => {
    const { productId } = products.own;
    const read = async (scopes: readonly Scope[]) =>
      admit(toProductKey(scopes), { access: "audit", product: NAMED[named]() });
    const isNone = named === "none";
    expect(await read(["read"])).toEqual(isNone ? { auditScope: productId } : "INVALID_INPUT");
    const others = SCOPES.filter((scope) => scope !== "read");
    expect(await read(others)).toBe(isNone ? "SCOPE_MISSING" : "INVALID_INPUT");
  });

  test("an operator acts for the live product of that slug only", async () => {
    const expected: Record<Named, "INVALID_INPUT" | "PRODUCT_NOT_FOUND" | "own" | "other"> = {
      none: "INVALID_INPUT",
      "own slug": "own",
      "other slug": "other",
      "other id": "PRODUCT_NOT_FOUND",
      "removed slug": "PRODUCT_NOT_FOUND",
      "removed id": "PRODUCT_NOT_FOUND",
      "unknown slug": "PRODUCT_NOT_FOUND",
      "unknown id": "PRODUCT_NOT_FOUND",
    };
    for (const access of [["read"], ["turns", "read"], [...SCOPES]] as const) {
      const admitted = await admit(OPERATOR, { access, product: NAMED[named]() });
      const wanted = expected[named];
      if (wanted !== "own" && wanted !== "other") expect(admitted).toBe(wanted);
      else {
        const { productId } = products[wanted];
        expect(admitted).toEqual({ productId, policy: POLICY, idempotencyScope: "operator:k1" });
      }
    }
  });

  test("an operator reads the audit log of a live or removed product, and of the platform", async () => {
    const expected: Record<Named, () => unknown> = {
      none: () => ({ auditScope: "platform" }),
      "own slug": () => ({ auditScope: products.own.productId }),
      "other slug": () => ({ auditScope: products.other.productId }),
      "other id": () => ({ auditScope: products.other.productId }),
      "removed slug": () => "PRODUCT_NOT_FOUND",
      "removed id": () => ({ auditScope: products.removed.productId }),
      "unknown slug": () => "PRODUCT_NOT_FOUND",
      "unknown id": () => "PRODUCT_NOT_FOUND",
    };
    expect(await admit(OPERATOR, { access: "audit", product: NAMED[named]() })).toEqual(expected[named]());
  });
});

test("of several scopes, a platform key needs all", async () => {
  const access = ["turns", "read"] as const;
  for (const scopes of [[], ["turns"], ["read"]] as const) {
    expect(await admit(toProductKey(scopes), { access })).toBe("SCOPE_MISSING");
  }
  expect(await admit(toProductKey(["read", "turns"]), { access })).toHaveProperty("productId");
});

test("only an operator is admitted to an operator's call, whatever scopes a platform key has", async () => {
  expect(await admit(toProductKey(SCOPES), { access: "operator" })).toBe("SCOPE_MISSING");
  expect(await admit(OPERATOR, { access: "operator" })).toEqual({ idempotencyScope: "operator:k1" });
});

test.each([
  { beginsWork: true, draining: true, refused: true },
  { beginsWork: true, draining: false, refused: false },
  { beginsWork: false, draining: true, refused: false },
  { beginsWork: false, draining: false, refused: false },
])("a draining replica refuses only calls that begin work: %o", async ({ refused, ...state }) => {
  const calls: [Caller, Access, string | undefined][] = [
    [toProductKey(SCOPES), ["lifecycle"], undefined],
    [toProductKey(SCOPES), "audit", undefined],
    [OPERATOR, ["lifecycle"], products.own.slug],
    [OPERATOR, "audit", undefined],
    [OPERATOR, "operator", undefined],
  ];
  for (const [caller, access, product] of calls) {
    const admitted = await admit(caller, { access, product, ...state });
    if (refused) expect(admitted).toBe("DRAINING");
    else expect(admitted).toBeTypeOf("object");
  }
  // DRAINING comes first: another replica gives the final answer.
  const wrong = await admit(toProductKey([]), { access: ["lifecycle"], ...state });
  expect(wrong).toBe(refused ? "DRAINING" : "SCOPE_MISSING");
});

test("a refusal says which scope is missing, and where the product belongs", async () => {
  const call = { access: ["keys"], beginsWork: false } as const;
  const drain = new DrainState();
  await expect(admitCall(toContext(drain), toProductKey(["read"]), call)).rejects.toThrow('"keys"');
  await expect(admitCall(toContext(drain), OPERATOR, call)).rejects.toMatchObject({
    issues: [{ path: "product" }],
  });
  drain.begin();
  const work = { ...call, beginsWork: true };
  await expect(admitCall(toContext(drain), OPERATOR, work)).rejects.toMatchObject({
    retryAfterMs: 1_000,
  });
});

test("calls beyond the key's scopes use up the product's rate limit, too", async () => {
  const policy = { rateLimitRpm: 2 };
  const { productId } = (await addProduct(ctx, policy)).product;
  const caller: Caller = {
    ...toProductKey(["read"]),
    kind: "platform_key",
    productId,
    policy,
    scopes: ["read"],
  };
  const context = toContext(new DrainState());
  const reasons: unknown[] = [];
  for (const access of ["operator", ["keys"], "operator", ["read"]] as const) {
    const call = { access, beginsWork: false } as CallToAdmit<"operator">;
    await admitCall(context, caller, call).catch((error: { reason: unknown }) => reasons.push(error.reason));
  }
  expect(reasons).toEqual(["SCOPE_MISSING", "SCOPE_MISSING", "RATE_LIMITED", "RATE_LIMITED"]);
});
