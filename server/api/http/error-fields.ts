import { findPostgresError } from "../../../db/postgres-error.ts";
import { toErrorMessage } from "../../errors.ts";

export interface ErrorFields {
  error: string;
  sqlState?: string;
  constraint?: string;
  stack?: string;
}

/**
 * What a log may hold of an unexpected error. A failed statement's own message carries the statement's parameters,
 * so the database's words stand in for it; the stack is kept without its first line, which repeats the message.
 */
export function toErrorFields(error: unknown): ErrorFields {
  const failure = findRootFailure(error);
  const postgresError = findPostgresError(error);
  const stack = failure instanceof Error ? findFrames(failure) : undefined;
  return {
    error: toErrorMessage(postgresError ?? failure),
    ...(postgresError && { sqlState: postgresError.code }),
    ...(postgresError?.constraint_name && { constraint: postgresError.constraint_name }),
    ...(stack !== undefined && { stack }),
  };
}

/** Drizzle and tRPC wrap; what they wrap is the news, and only it is free of parameters. */
function findRootFailure(error: unknown): unknown {
  let current = error;
  while (current instanceof Error && current.cause instanceof Error) current = current.cause;
  return current;
}

function findFrames(error: Error): string | undefined {
  const frames = error.stack?.split("\n").filter((line) => /^\s+at /.test(line));
  return frames?.slice(0, 12).join("\n");
}
