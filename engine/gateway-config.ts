import { readFileSync } from "node:fs";
import type { Brain } from "./brain.ts";
import { EngineError } from "./engine-error.ts";
import { isJsonObject, type JsonObject } from "./json-object.ts";

export interface GatewayConfig {
  readonly config: JsonObject;
  /** 0 until a config is set; each change adds one. */
  readonly revision: number;
  readonly updated_at: string | null;
}

export function getGatewayConfig(brain: Pick<Brain, "sql">): GatewayConfig {
  const row = brain.sql.get`SELECT config, revision, updated_at FROM gateway_config WHERE id = 1`;
  if (!row) throw new Error("the brain has no gateway config row");
  const updatedAt = row["updated_at"];
  return {
    config: JSON.parse(String(row["config"])) as JsonObject,
    revision: Number(row["revision"]),
    updated_at: typeof updatedAt === "string" ? updatedAt : null,
  };
}

/** Replaces the whole config at once: a reader, or the next start after a kill, gets the old one or the new one. */
export function setGatewayConfig(
  brain: Pick<Brain, "sql" | "transaction">,
  config: JsonObject,
): GatewayConfig {
  const text = JSON.stringify(config);
  return brain.transaction(() => {
    brain.sql.run`
      UPDATE gateway_config SET config = ${text}, revision = revision + 1, updated_at = ${new Date().toISOString()}
      WHERE id = 1`;
    return getGatewayConfig(brain);
  });
}

/** Replaces the config by the one in `file`. If the file is missing, nothing changes; if it is invalid, throws. */
export function reloadGatewayConfig(
  brain: Pick<Brain, "sql" | "transaction">,
  file: string,
): GatewayConfig & { readonly reloaded: boolean } {
  const text = readIfExists(file);
  if (text === undefined) return { reloaded: false, ...getGatewayConfig(brain) };
  return { reloaded: true, ...setGatewayConfig(brain, parseConfigFile(file, text)) };
}

function readIfExists(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw new EngineError(422, "CONFIG_UNREADABLE", `${file} cannot be read`);
  }
}

function parseConfigFile(file: string, text: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // Every JSON text is YAML, and the standard library can parse no other YAML.
    throw new EngineError(
      422,
      "CONFIG_UNREADABLE",
      `${file} is not JSON: this engine reads the part of YAML that is JSON`,
    );
  }
  if (!isJsonObject(value)) throw new EngineError(422, "CONFIG_INVALID", `${file} does not hold an object`);
  return value;
}
