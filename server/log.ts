import { pino, stdTimeFunctions, symbols, type DestinationStream, type LoggerOptions } from "pino";
import { prettyFactory } from "pino-pretty";
import { openStdoutLines, type LogOutput } from "./log-output.ts";
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

interface LogTarget {
  /** Default: stdout. */
  output?: LogOutput;
  /** No line above the level info shows these values. */
  secrets?: Secrets;
}

/** Writes JSON lines to the output, or readable lines for a terminal. Warnings and errors are written at once. */
export function openLog(options: LogOptions, { output, secrets = new Secrets([]) }: LogTarget = {}): Log {
  const redact = { paths: SECRET_PATHS.flatMap((name) => [name, `*.${name}`]), censor: "[hidden]" };
  const formatters = { level: (level: string) => ({ level }) };
  const hooks = { logMethod: toHidingMethod(secrets) };
  const settings = { level: options.level, redact, base: {}, hooks, timestamp: stdTimeFunctions.isoTime };
  if (options.level === "silent") return pino(settings);
  const target = output ?? openStdoutLines();
  const log: Log = options.pretty
    ? pino(settings, toDestination(target, toReadable()))
    : pino({ ...settings, formatters }, toDestination(target, String));
  target.onRecovered((dropped) => log.warn(dropped, "log lines were dropped"));
  return log;
}

function toReadable(): (line: string) => string {
  return prettyFactory({ ignore: "pid,hostname", translateTime: "HH:MM:ss", singleLine: true });
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

const WARN = pino.levels.values["warn"] ?? 0;
const INFO = pino.levels.values["info"] ?? 0;

function toDestination(output: LogOutput, format: (line: string) => string): DestinationStream {
  return {
    // pino then sets `lastLevel` before each write.
    [symbols.needsMetadataGsym]: true,
    lastLevel: 0,
    write(line: string) {
      output.write(format(line), this.lastLevel >= WARN);
    },
  } as DestinationStream & { lastLevel: number };
}
