import { DomainError, type TamperedRow } from "../errors.ts";

/** The tables whose rows carry a MAC. */
export type MacTable = TamperedRow["table"];

/** What is wrong with a row whose MAC or seal does not verify. For callers, logs and the audit log. */
export function explainTampering(table: MacTable, id: string): string {
  return (
    `the row ${id} of the table ${table} was changed outside of the service: ` +
    "restore it from a backup, or check it and run `npm run keys:adopt`"
  );
}

/**
 * The refusal of a row. Where the call ends, its failure is reported with `tampered`.
 * `cause`: why a sealed value of the row does not open; it may name a master key that is missing.
 */
export function rowTampered(tampered: TamperedRow, cause?: Error): DomainError {
  const detail = cause === undefined ? "" : ` (${cause.message})`;
  const message = `${explainTampering(tampered.table, tampered.id)}${detail}`;
  return new DomainError("ROW_TAMPERED", message, { tampered, cause });
}
