import type { Environment } from "./problems.ts";
import { SETTINGS, SETTINGS_TO_COME } from "./settings.ts";

const KNOWN_NAMES = Object.values(SETTINGS).map(({ name }) => name);
/** More changes than this and the nearest name is a guess. */
const MAX_DISTANCE = 4;

/** Variables of ours that do nothing, which their author will want to know. Names only, never values. */
export function listWarnings(env: Environment): string[] {
  return Object.keys(env)
    .filter((name) => name.startsWith("ORCH_") && env[name] && !KNOWN_NAMES.includes(name))
    .sort()
    .map(toWarning);
}

function toWarning(name: string): string {
  if (SETTINGS_TO_COME.some((known) => known === name)) return `${name} has no effect yet`;
  const nearest = findNearest(name);
  const hint = nearest === undefined ? "" : `; did you mean ${nearest}?`;
  return `${name} is no setting of this service${hint}`;
}

function findNearest(name: string): string | undefined {
  const [best] = [...KNOWN_NAMES, ...SETTINGS_TO_COME]
    .map((known) => ({ known, distance: toDistance(name, known) }))
    .sort((a, b) => a.distance - b.distance);
  return best !== undefined && best.distance <= MAX_DISTANCE ? best.known : undefined;
}

/** How many characters have to be added, removed or replaced to make one text the other. */
function toDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (const [index, letter] of Array.from(from).entries()) {
    const next = [index + 1];
    for (let column = 1; column <= to.length; column += 1) {
      const replaced = (row[column - 1] ?? 0) + (letter === to[column - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[column] ?? 0) + 1, (next[column - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
