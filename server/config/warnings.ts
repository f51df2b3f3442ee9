import { closest, distance } from "fastest-levenshtein";
import type { Environment } from "./problems.ts";
import { PLANNED_SETTINGS, SETTINGS } from "./settings.ts";

const SETTING_NAMES = Object.values(SETTINGS).map(({ name }) => name);
/** With more different characters than this, the nearest name is only a guess. */
const MAX_DISTANCE = 4;

/** One warning for each ORCH_ variable that has no effect. A warning has the variable's name, never its value. */
export function listWarnings(env: Environment): string[] {
  return Object.keys(env)
    .filter((name) => name.startsWith("ORCH_") && env[name] && !SETTING_NAMES.includes(name))
    .sort()
    .map(toWarning);
}

function toWarning(name: string): string {
  if (PLANNED_SETTINGS.some((planned) => planned === name)) return `${name} has no effect yet`;
  const nearest = closest(name, [...SETTING_NAMES, ...PLANNED_SETTINGS]);
  const hint = distance(name, nearest) <= MAX_DISTANCE ? `; did you mean ${nearest}?` : "";
  return `${name} is not a setting of this service${hint}`;
}
