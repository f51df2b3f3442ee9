import { pino, stdTimeFunctions } from "pino";

export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  child(fields: object): Log;
}

export const LOG_LEVELS = ["debug", "info", "warn", "error", "silent"] as const;
export interface LogOptions {
  level: (typeof LOG_LEVELS)[number];
  pretty: boolean;
}

/** Names that must never reach a log line, wherever in a logged object they turn up. */
const SECRET_PATHS = [
  "apiKey",
  "key",
  "authorization",
  "keySealed",
  "nextKeySealed",
  "input",
  "connectionParams",
];

/** JSON lines on stdout, or readable ones for a terminal. */
export function openLog(options: LogOptions): Log {
  const redact = { paths: SECRET_PATHS.flatMap((name) => [name, `*.${name}`]), censor: "[hidden]" };
  const formatters = { level: (level: string) => ({ level }) };
  const settings = { level: options.level, redact, base: {}, timestamp: stdTimeFunctions.isoTime };
  if (!options.pretty) return pino({ ...settings, formatters });
  return pino({
    ...settings,
    transport: { target: "pino-pretty", options: { ignore: "pid,hostname", translateTime: "HH:MM:ss" } },
  });
}
