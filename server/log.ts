import { pino, stdTimeFunctions, symbols, type DestinationStream } from "pino";

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
  if (options.level === "silent") return pino(settings);
  if (!options.pretty) return pino({ ...settings, formatters }, openGatheredLines());
  return pino({
    ...settings,
    transport: {
      target: "pino-pretty",
      options: { ignore: "pid,hostname", translateTime: "HH:MM:ss", singleLine: true },
    },
  });
}

const GATHER_MS = 5;
const GATHER_MAX_LENGTH = 64 * 1024;
const WARN = pino.levels.values["warn"] ?? 0;

/**
 * Writes what comes within a few milliseconds at once: a line per request would be a system call per request. Warnings
 * and errors wait for nothing, and neither does what is left when the process exits, be it by an uncaught exception;
 * only a kill that no process can see takes the last milliseconds along.
 */
function openGatheredLines(): DestinationStream {
  const stdout = pino.destination({ dest: 1, sync: true });
  let lines = "";
  let timer: NodeJS.Timeout | undefined;
  const flush = () => {
    clearTimeout(timer);
    timer = undefined;
    const text = lines;
    lines = "";
    if (text !== "") stdout.write(text);
  };
  process.on("exit", flush);
  return {
    [symbols.needsMetadataGsym]: true,
    lastLevel: 0,
    write(line: string) {
      lines += line;
      if (this.lastLevel >= WARN || lines.length > GATHER_MAX_LENGTH) flush();
      else timer ??= setTimeout(flush, GATHER_MS).unref();
    },
  } as DestinationStream & { lastLevel: number };
}
