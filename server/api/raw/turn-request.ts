import { ENGINE_NAMES } from "../../engine-contract/execute-body.ts";
import { splitObject, withSource } from "../../json/json-text.ts";
import { readRawBody, refuseName } from "./raw-body.ts";

const OUR_NAMES: ReadonlyMap<string, string> = new Map(
  Array.from(ENGINE_NAMES, ([ours, engine]) => [engine, ours]),
);

/**
 * Makes the `request` of a turn from a body of `/execute`, as an engine takes it. It is the same request as in
 * `turns.start`, so the same turn can be started both ways. Values keep their text.
 *
 * @throws INVALID_INPUT if the body is no JSON object, or has a field in our spelling, which the engine would not know.
 */
export function toTurnRequest(body: unknown): object {
  const { value: parsed, text } = readRawBody(body, "the body of the engine's /execute");
  for (const name of Object.keys(parsed)) requireEngineName(name);
  // `fromEntries` makes a field of each entry, also of one that is named __proto__.
  const request: object = Object.fromEntries(
    Object.entries(parsed).map(([name, value]) => [toOurName(name), value]),
  );
  const members = splitObject(text).map(([name, json]) => `${JSON.stringify(toOurName(name))}:${json}`);
  return withSource(request, `{${members.join(",")}}`);
}

function toOurName(name: string): string {
  return OUR_NAMES.get(name) ?? name;
}

function requireEngineName(name: string): void {
  const engineName = ENGINE_NAMES.get(name);
  if (engineName !== undefined) refuseName(name, engineName);
}
