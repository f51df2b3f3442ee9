import { DomainError } from "../errors.ts";

/** The tables whose rows carry a MAC. */
export type MacTable = "engines" | "products" | "platform_keys" | "operators";

/** What is wrong with a row whose MAC or seal does not verify. For callers, logs and the audit log. */
export function explainTampering(table: MacTable, id: string): string {
  return (
    `the row ${id} of the table ${table} was changed outside of the service: ` +
    "restore it from a backup, or check it and run `npm run keys:adopt`"
  );
}

/** `cause`: why a sealed value of the row does not open; it may name a master key that is missing. */
export function rowTampered(table: MacTable, id: string, cause?: Error): DomainError {
  const detail = cause === undefined ? "" : ` (${cause.message})`;
  return new DomainError("ROW_TAMPERED", `${explainTampering(table, id)}${detail}`, { cause });
}
