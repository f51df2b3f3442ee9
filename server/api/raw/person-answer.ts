import { findMember, withSource } from "../../json/json-text.ts";
import { readRawBody, refuseField, refuseName } from "./raw-body.ts";

/** Fields of `turns.respond` that have no place in the body, with what to do. */
const NOT_IN_BODY = [
  ["turnId", "is in the path: leave it out of the body"],
  ["userId", "is not needed, because the turn is in the path: leave it out"],
  ["taskId", "is not needed, because the turn is in the path: leave it out"],
  ["product", "is the query parameter product: leave it out of the body"],
  ["idempotencyKey", "is the header Idempotency-Key: leave it out of the body"],
] as const;

/**
 * Makes the fields of `turns.respond` from a body in the engine's spelling. The content blocks keep their text. Unknown
 * fields stay, and the procedure refuses them.
 */
export function toPersonAnswer(body: unknown): object {
  const { value, text } = readRawBody(body, "answer, and perhaps request_id, feedback and content_blocks");
  const { content_blocks: blocks, request_id: requestId, ...others } = value as Record<string, unknown>;
  if (Object.hasOwn(others, "contentBlocks")) refuseName("contentBlocks", "content_blocks");
  if (Object.hasOwn(others, "requestId")) refuseName("requestId", "request_id");
  for (const [name, message] of NOT_IN_BODY) {
    if (Object.hasOwn(others, name)) refuseField(name, message);
  }
  const rest = requestId === undefined ? others : { ...others, requestId };
  if (blocks === undefined) return rest;
  const source = findMember(text, "content_blocks");
  const isObject = typeof blocks === "object" && blocks !== null;
  const contentBlocks = isObject && source !== undefined ? withSource(blocks, source) : blocks;
  return { ...rest, contentBlocks };
}
