import { findMember, withSource } from "../../json/json-text.ts";
import { readRawBody, refuseName } from "./raw-body.ts";

/** Their place is the path and the header. */
const NOT_IN_BODY = ["turnId", "userId", "taskId", "idempotencyKey"];

/**
 * Makes the fields of `turns.respond` from a body in the engine's spelling. The content blocks keep their text. Unknown
 * fields stay, and the procedure refuses them.
 */
export function toPersonAnswer(body: unknown): object {
  const { value, text } = readRawBody(body, "answer, and perhaps feedback and content_blocks");
  const { content_blocks: blocks, ...rest } = value as Record<string, unknown>;
  if (Object.hasOwn(rest, "contentBlocks")) refuseName("contentBlocks", "content_blocks");
  for (const name of NOT_IN_BODY) {
    if (Object.hasOwn(rest, name)) refuseName(name, "in the path or the header Idempotency-Key");
  }
  if (blocks === undefined) return rest;
  const source = findMember(text, "content_blocks");
  const isObject = typeof blocks === "object" && blocks !== null;
  const contentBlocks = isObject && source !== undefined ? withSource(blocks, source) : blocks;
  return { ...rest, contentBlocks };
}
