import { join, resolve } from "node:path";
import { isatty } from "node:tty";
import {
  listConflicts,
  listProductionProblems,
  toProblem,
  type Environment,
  type ReadValues,
} from "./problems.ts";
import { SETTINGS, type Setting, type SettingValues } from "./settings.ts";
import { listWarnings } from "./warnings.ts";
import { hashKey } from "../keys/key-format.ts";
import type { LogOptions } from "../log.ts";
import type { ContainerLimits } from "../runtime/engine-runtime.ts";

/** These settings become parts of other values of the configuration. */
type SourceName = "adminKey" | "logLevel" | "logPretty" | "passthroughNames" | keyof ContainerLimits;

/** The configuration from the environment, parsed and checked. Relative paths are resolved. */
export interface Config extends Omit<SettingValues, SourceName> {
  production: boolean;
  log: LogOptions;
  limits: ContainerLimits;
  /** Environment variables for every engine. A configured name without a value is absent. */
  passthrough: Readonly<Record<string, string>>;
  catalogPath: string;
}

/** The message has one line for each problem. */
export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join("\n"));
    this.name = "ConfigError";
    this.problems = problems;
  }
}

/**
 * Reads every setting. An empty variable counts as not set.
 *
 * @throws ConfigError with all problems at once. Neither problems nor warnings contain secrets.
 */
export function parseConfig(env: Environment): { config: Config; warnings: string[] } {
  const production = env["NODE_ENV"] === "production";
  const problems: string[] = [];
  const read: Record<string, unknown> = {};
  for (const [key, setting] of Object.entries<Setting<unknown>>(SETTINGS)) {
    const outcome = readSetting(env, setting, production);
    if ("problem" in outcome) problems.push(outcome.problem);
    else read[key] = outcome.value;
  }
  const values = read as ReadValues;
  problems.push(...listConflicts(env, values));
  if (production) problems.push(...listProductionProblems(env, values));
  if (problems.length > 0) throw new ConfigError(problems);
  return { config: toConfig(env, values as SettingValues, production), warnings: listWarnings(env) };
}

function readSetting(
  env: Environment,
  setting: Setting<unknown>,
  production: boolean,
): { value: unknown } | { problem: string } {
  const fallback = (production ? setting.productionDefault : undefined) ?? setting.default;
  const source = findSource(env, setting);
  const given = env[source.name];
  const text = (setting.secret ? given : given?.trim()) || fallback;
  if (text === undefined) return { value: undefined };
  const parsed = setting.schema.safeParse(text);
  if (parsed.success) return { value: parsed.data };
  const detail = parsed.error.issues.find(({ code }) => code === "custom")?.message;
  return { problem: toProblem(env, source, detail) };
}

/** If ORCH_DOCKER_HOST is not set, uses the variable of the `docker` command. */
function findSource(env: Environment, setting: Setting<unknown>): Setting<unknown> {
  if (setting.name !== SETTINGS.dockerHost.name || env[setting.name]) return setting;
  return { ...setting, name: "DOCKER_HOST" };
}

function toConfig(env: Environment, values: SettingValues, production: boolean): Config {
  const { adminKey, logLevel, logPretty, passthroughNames, ...rest } = values;
  const { memoryMb, cpus, pids, readOnly, capAdd, user, ...settings } = rest;
  const dataDir = resolve(values.dataDir);
  return {
    ...settings,
    production,
    dataDir,
    log: { level: logLevel, pretty: logPretty ?? isatty(1) },
    migrationDatabaseUrl: values.migrationDatabaseUrl ?? values.databaseUrl,
    adminKeyHash: values.adminKeyHash ?? (adminKey === undefined ? undefined : hashKey(adminKey)),
    passthrough: toPassthrough(env, passthroughNames),
    limits: { memoryMb, cpus, pids, readOnly, capAdd, user: user ?? null },
    catalogPath: values.catalogPath === undefined ? join(dataDir, "catalog") : resolve(values.catalogPath),
  };
}

function toPassthrough(env: Environment, names: readonly string[]): Record<string, string> {
  const pairs = names.flatMap((name) => {
    const value = env[name];
    return value === undefined ? [] : [[name, value] as const];
  });
  return Object.fromEntries(pairs);
}
