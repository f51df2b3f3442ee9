import { findPostgresError } from "../../../db/postgres-error.ts";
import { toErrorMessage } from "../../errors.ts";

export interface ErrorFields {
  error: string;
  sqlState?: string;
  constraint?: string;
  stack?: string;
}

/**
 * Returns the fields of an unexpected error that a log may show. The message of a failed statement has its parameters,
 * so the message of Postgres replaces it. The stack comes without its first line, which repeats the message.
 */
export function toErrorFields(error: unknown): ErrorFields {
  const failure = findRootError(error);
  const postgresError = findPostgresError(error);
  const stack = failure instanceof Error ? findFrames(failure) : undefined;
  return {
    error: toErrorMessage(postgresError ?? failure),
    ...(postgresError && { sqlState: postgresError.code }),
    ...(postgresError?.constraint_name && { constraint: postgresError.constraint_name }),
    ...(stack !== undefined && { stack }),
  };
}

/** Drizzle and tRPC wrap errors. Only the innermost error is free of parameters, and it tells what failed. */
function findRootError(error: unknown): unknown {
  let current = error;
  while (current instanceof Error && current.cause instanceof Error) current = current.cause;
  return current;
}

function findFrames(error: Error): string | undefined {
  const frames = error.stack?.split("\n").filter((line) => /^\s+at /.test(line));
  return frames?.slice(0, 12).join("\n");
}
