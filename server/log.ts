import { pino, stdTimeFunctions, symbols, type DestinationStream, type LoggerOptions } from "pino";
import { Secrets } from "./secrets/secrets.ts";

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

/** Fields with these names are hidden, at the top of a logged object and one level below. */
const SECRET_PATHS = [
  "apiKey",
  "key",
  "authorization",
  "keySealed",
  "nextKeySealed",
  "input",
  "connectionParams",
];

/** Writes JSON lines to stdout, or readable lines for a terminal, without these secrets. */
export function openLog(options: LogOptions, secrets = new Secrets([])): Log {
  const redact = { paths: SECRET_PATHS.flatMap((name) => [name, `*.${name}`]), censor: "[hidden]" };
  const formatters = { level: (level: string) => ({ level }) };
  const hooks = { logMethod: toHidingMethod(secrets) };
  const settings = { level: options.level, redact, base: {}, hooks, timestamp: stdTimeFunctions.isoTime };
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

/**
 * Hides secrets in the fields of a line. Not in lines of level info: there is one for each request, and none has words
 * of engines, runtimes or errors.
 */
function toHidingMethod(secrets: Secrets): LogFnHook {
  return function hideAndLog(args, method, level) {
    const [fields, ...rest] = args;
    method.apply(this, level === INFO ? args : ([secrets.hideIn(fields), ...rest] as typeof args));
  };
}

type LogFnHook = NonNullable<NonNullable<LoggerOptions["hooks"]>["logMethod"]>;

const GATHER_MS = 5;
const GATHER_MAX_LENGTH = 64 * 1024;
const WARN = pino.levels.values["warn"] ?? 0;
const INFO = pino.levels.values["info"] ?? 0;

/**
 * Gathers the lines of a few milliseconds into one write, because a write per line costs a system call per request.
 * Warnings and errors are written at once. So is the rest when the process exits, also by an uncaught exception. Only
 * SIGKILL loses the lines of the last milliseconds.
 */
function openGatheredLines(): DestinationStream {
  const stdout = pino.destination({ dest: 1, sync: true });
  let lines = "";
  let timer: NodeJS.Timeout | undefined;
  const writeLines = () => {
    clearTimeout(timer);
    timer = undefined;
    const text = lines;
    lines = "";
    if (text !== "") stdout.write(text);
  };
  process.on("exit", writeLines);
  return {
    [symbols.needsMetadataGsym]: true,
    lastLevel: 0,
    write(line: string) {
      lines += line;
      if (this.lastLevel >= WARN || lines.length > GATHER_MAX_LENGTH) writeLines();
      else timer ??= setTimeout(writeLines, GATHER_MS).unref();
    },
  } as DestinationStream & { lastLevel: number };
}
