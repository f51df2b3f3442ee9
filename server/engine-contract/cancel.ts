import { DomainError } from "../errors.ts";
import type { EngineConnections } from "./connections.ts";
import { type CallTarget, postJson } from "./post-json.ts";

/**
 * What an engine makes of `POST /execute/cancel`:
 *
 * - `cancelled`: it has ended the task's turn, and the task is free.
 * - `no_turn`: it says that it had no turn of this task to end.
 * - `unsupported`: it has no such call.
 * - `unknown`: no usable answer came in time.
 */
export type CancelAnswer = "cancelled" | "no_turn" | "unsupported" | "unknown";

/** Asks the engine once to end the turn of a task. */
export async function cancelTask(
  connections: EngineConnections,
  target: CallTarget,
  { taskId, timeoutMs }: { taskId: string; timeoutMs: number },
): Promise<CancelAnswer> {
  try {
    const { value } = await postJson(connections, target, {
      path: "/execute/cancel",
      body: `{"task_id":${JSON.stringify(taskId)}}`,
      timeoutMs,
      readOnly: false,
      isOptional: true,
    });
    if (value["cancelled"] === true) return "cancelled";
    return value["cancelled"] === false ? "no_turn" : "unknown";
  } catch (error) {
    if (!(error instanceof DomainError)) throw error;
    return error.reason === "NOT_SUPPORTED_BY_ENGINE" ? "unsupported" : "unknown";
  }
}
