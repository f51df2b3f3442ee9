import { readFileSync } from "node:fs";
import type { Brain } from "./brain.ts";
import { EngineError } from "./engine-error.ts";
import { isJsonObject, type JsonObject } from "./json-object.ts";

export interface GatewayConfig {
  readonly config: JsonObject;
  /** 0 until a config was set; each swap adds one. */
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

/** Swaps the whole config: a reader sees the old one or the new one, and so does an engine that is killed meanwhile. */
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

/** Takes the config of `file`. Without the file the config of the brain stays; a bad file changes nothing either. */
export function reloadGatewayConfig(
  brain: Pick<Brain, "sql" | "transaction">,
  file: string,
): GatewayConfig & { readonly reloaded: boolean } {
  const text = readIfThere(file);
  if (text === undefined) return { reloaded: false, ...getGatewayConfig(brain) };
  return { reloaded: true, ...setGatewayConfig(brain, parseConfigFile(file, text)) };
}

function readIfThere(file: string): string | undefined {
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
    // JSON is YAML too, and the standard library reads no other.
    throw new EngineError(
      422,
      "CONFIG_UNREADABLE",
      `${file} is not JSON: this engine reads the part of YAML that is JSON`,
    );
  }
  if (!isJsonObject(value)) throw new EngineError(422, "CONFIG_INVALID", `${file} does not hold an object`);
  return value;
}
