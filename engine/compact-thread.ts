import type { Brain } from "./brain.ts";
import { countMessages, forgetThroughExchange } from "./threads.ts";

const COMPACT_ABOVE_MESSAGES = 20;
const KEPT_EXCHANGES = 5;

/** Forgets all but the last exchanges of a thread that is too long. Returns undefined when it is short enough. */
export function compactThread(
  brain: Pick<Brain, "sql">,
  taskId: string,
  exchange: number,
): { readonly messages_removed: number; readonly messages_kept: number } | undefined {
  const before = countMessages(brain, taskId);
  if (before <= COMPACT_ABOVE_MESSAGES) return undefined;
  const removed = forgetThroughExchange(brain, taskId, exchange - KEPT_EXCHANGES);
  return { messages_removed: removed, messages_kept: before - removed };
}
