import { auditRouter } from "./audit-router.ts";
import { engineKeysRouter } from "./engine-keys-router.ts";
import { enginesRouter } from "./engines-router.ts";
import { fleetRouter } from "./fleet-router.ts";
import { healthRouter } from "./health-router.ts";
import { operatorsRouter } from "./operators-router.ts";
import { platformKeysRouter } from "./platform-keys-router.ts";
import { productsRouter } from "./products-router.ts";
import { rpcRouter } from "./rpc-router.ts";
import { t } from "../trpc/trpc.ts";
import { turnsRouter } from "./turns-router.ts";

export const appRouter = t.router({
  engines: enginesRouter,
  engineKeys: engineKeysRouter,
  rpc: rpcRouter,
  turns: turnsRouter,
  products: productsRouter,
  platformKeys: platformKeysRouter,
  operators: operatorsRouter,
  fleet: fleetRouter,
  audit: auditRouter,
  health: healthRouter,
});

/** The type from which a client derives all procedures, inputs and outputs. */
export type AppRouter = typeof appRouter;
