import { isPinnedImage } from "../engines/model/pinned-image.ts";
import { hashKey } from "../keys/key-format.ts";
import { SETTINGS, type Setting, type SettingValues } from "./settings.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** The values that could be read. Checks that need a missing value skip it. */
export type ReadValues = Partial<SettingValues>;

const MAX_SHOWN_LENGTH = 100;
const RESERVED_NAMES: readonly string[] = ["ENGINE_KEY_HASH", "SQLITE_DB_PATH", "CATALOG_DIR"];

/** One line: the variable, its value unless secret, the detail if there is one, and the values it takes. */
export function toProblem(env: Environment, setting: Setting<unknown>, detail?: string): string {
  const value = env[setting.name] ? `is ${toShown(setting, env[setting.name] ?? "")}` : "is not set";
  const why = detail === undefined ? "" : `, and ${detail}`;
  return `${setting.name} ${value}${why}; it takes ${setting.takes}`;
}

function toShown(setting: Setting<unknown>, text: string): string {
  if (setting.secret) return "set (its value is not shown)";
  const shown = text.length > MAX_SHOWN_LENGTH ? `${text.slice(0, MAX_SHOWN_LENGTH)}…` : text;
  return JSON.stringify(shown);
}

/** Problems between settings that are valid alone. */
export function listConflicts(env: Environment, values: ReadValues): string[] {
  return [
    ...listNumberConflicts(env, values),
    ...listImageConflicts(env, values),
    ...listPassthroughConflicts(env, values),
    ...listAdminKeyConflicts(env, values),
  ];
}

function listNumberConflicts(env: Environment, values: ReadValues): string[] {
  const problems: string[] = [];
  const { portMin, portMax, heartbeatMs, leaseMs } = values;
  if (portMin !== undefined && portMax !== undefined && portMin > portMax) {
    problems.push(toProblem(env, SETTINGS.portMin, `ORCH_PORT_MAX is ${portMax}, which is below ${portMin}`));
  }
  if (heartbeatMs !== undefined && leaseMs !== undefined && leaseMs <= 2 * heartbeatMs) {
    const detail = `it must be more than twice ORCH_HEARTBEAT_S, which is ${heartbeatMs / 1000}`;
    problems.push(toProblem(env, SETTINGS.leaseMs, detail));
  }
  return problems;
}

function listImageConflicts(env: Environment, values: ReadValues): string[] {
  if (values.allowUnpinnedImage !== false) return [];
  const remedy = "a tag other than latest, or a digest, unless ORCH_ALLOW_UNPINNED_IMAGE is true";
  return (["engineImage", "engineImageAllow"] as const).flatMap((name) => {
    const unpinned = [values[name] ?? []].flat().filter((image) => !isPinnedImage(image));
    if (unpinned.length === 0) return [];
    return [toProblem(env, SETTINGS[name], `${unpinned.join(", ")} needs ${remedy}`)];
  });
}

/** Settings of this service may be secrets, and the engine contract sets some names itself. */
function listPassthroughConflicts(env: Environment, values: ReadValues): string[] {
  const refused = (values.passthroughNames ?? []).filter(
    (name) => name.toUpperCase().startsWith("ORCH_") || RESERVED_NAMES.includes(name),
  );
  if (refused.length === 0) return [];
  const detail = `${refused.join(", ")} must not be passed on to engines`;
  return [toProblem(env, SETTINGS.passthroughNames, detail)];
}

function listAdminKeyConflicts(env: Environment, values: ReadValues): string[] {
  const { adminKey, adminKeyHash } = values;
  if (adminKey === undefined || adminKeyHash === undefined || hashKey(adminKey) === adminKeyHash) return [];
  return [toProblem(env, SETTINGS.adminKey, "its SHA-256 is not ORCH_ADMIN_KEY_HASH")];
}

/** Production refuses generated secrets and databases, and engines without isolation. */
export function listProductionProblems(env: Environment, values: ReadValues): string[] {
  const problems = Object.values(SETTINGS)
    .filter((setting) => setting.requiredInProduction && !env[setting.name])
    .map((setting) => toProblem(env, setting, "production requires it"));
  if (!env[SETTINGS.adminKeyHash.name] && !env[SETTINGS.adminKey.name]) {
    problems.push(toProblem(env, SETTINGS.adminKeyHash, "production requires it, or ORCH_ADMIN_KEY instead"));
  }
  const isChosen = env[SETTINGS.runtimeChoice.name] && values.runtimeChoice !== undefined;
  if (isChosen && values.runtimeChoice !== "docker") {
    problems.push(toProblem(env, { ...SETTINGS.runtimeChoice, takes: "only docker in production" }));
  }
  return problems;
}
