/** Writes one line of JSON to stdout, which is the container's log. */
export function logLine(msg: string, fields: Readonly<Record<string, unknown>> = {}): void {
  process.stdout.write(`${JSON.stringify({ at: new Date().toISOString(), msg, ...fields })}\n`);
}
