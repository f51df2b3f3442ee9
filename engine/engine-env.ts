export interface EngineEnv {
  /** SHA-256 of the engine key. */
  readonly keyHash: Buffer;
  readonly brainPath: string;
  readonly catalogDir: string;
  readonly host: string;
  /** 0: the system picks a free port. */
  readonly port: number;
}

/** Throws one error that names every missing or invalid variable. */
export function parseEngineEnv(env: Readonly<Record<string, string | undefined>>): EngineEnv {
  const problems: string[] = [];
  const required = (name: string): string => {
    const value = env[name] ?? "";
    if (value === "") problems.push(`${name} is required`);
    return value;
  };
  const keyHash = required("ENGINE_KEY_HASH");
  if (keyHash !== "" && !/^[0-9a-f]{64}$/.test(keyHash)) {
    problems.push("ENGINE_KEY_HASH must be a SHA-256 in lower-case hex");
  }
  const brainPath = required("SQLITE_DB_PATH");
  const catalogDir = required("CATALOG_DIR");
  const portText = env["ENGINE_PORT"] || "8000";
  const port = Number(portText);
  if (!/^\d{1,5}$/.test(portText) || port > 65_535) {
    problems.push(`ENGINE_PORT must be a port from 0 to 65535, not ${JSON.stringify(portText)}`);
  }
  if (problems.length > 0) throw new Error(problems.join("; "));
  return {
    keyHash: Buffer.from(keyHash, "hex"),
    brainPath,
    catalogDir,
    host: env["ENGINE_HOST"] || "0.0.0.0",
    port,
  };
}
