import { readFileSync } from "node:fs";
import { closest, distance } from "fastest-levenshtein";

export interface Program {
  /** The text of `--help`. */
  usage: string;
  /** Names of settings that are environment variables. An option that looks like one gets a hint. */
  settings?: readonly string[];
  /** Other arguments that the program takes. Default: none. */
  takes?: (argument: string) => boolean;
}

export interface Answer {
  text: string;
  exitCode: 0 | 2;
}

const OWN_ARGUMENTS = ["--help", "--version"];
const MAX_DISTANCE = 3;

/** What to print instead of running the program: a help text, or what is wrong with an argument. undefined: run it. */
export function answerArguments(args: readonly string[], program: Program): Answer | undefined {
  const asked = args.find((argument) => ["--help", "-h", "--version"].includes(argument));
  if (asked === "--version") return { text: `${readVersion()}\n`, exitCode: 0 };
  if (asked !== undefined) return { text: `${program.usage.trim()}\n`, exitCode: 0 };
  const unknown = args.find((argument) => program.takes?.(argument) !== true);
  if (unknown === undefined) return undefined;
  return {
    text: `unknown argument "${unknown}"${toHint(unknown, program)}; --help shows the usage\n`,
    exitCode: 2,
  };
}

/** Answers on the right stream and exits, if there is something to answer. */
export function exitIfAnswered(program: Program): void {
  const answer = answerArguments(process.argv.slice(2), program);
  if (answer === undefined) return;
  (answer.exitCode === 0 ? process.stdout : process.stderr).write(answer.text);
  process.exit(answer.exitCode);
}

function toHint(argument: string, { settings = [] }: Program): string {
  const [name = ""] = argument.split("=");
  const option = findNearest(name, OWN_ARGUMENTS);
  if (option !== undefined) return `: did you mean ${option}?`;
  const variable = name
    .replace(/^-+/, "")
    .replaceAll("-", "_")
    .toUpperCase()
    .replace(/^(?:ORCH_)?/, "ORCH_");
  const setting = findNearest(variable, settings);
  return setting === undefined
    ? ""
    : `: settings are environment variables, so set ${setting} before the command`;
}

function findNearest(name: string, known: readonly string[]): string | undefined {
  if (known.length === 0) return undefined;
  const nearest = closest(name, [...known]);
  return distance(name, nearest) <= MAX_DISTANCE ? nearest : undefined;
}

function readVersion(): string {
  const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
    name: string;
    version: string;
  };
  return `${manifest.name} ${manifest.version}`;
}
