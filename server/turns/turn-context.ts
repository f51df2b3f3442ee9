import type { BaseContext } from "../context.ts";
import type { Replica } from "../replicas/replica.ts";
import type { TurnSeals } from "./log/turn-seals.ts";
import type { TurnRegistry } from "./turn-registry.ts";

/** What the functions for a turn's row use. Each names the part that it uses with `Pick`. */
export interface TurnContext extends Pick<BaseContext, "raw" | "clock" | "log"> {
  turns: TurnRegistry;
  replica: Pick<Replica, "id">;
  seals: Pick<TurnSeals, "seal" | "open" | "readEnd" | "keepKeys">;
}
