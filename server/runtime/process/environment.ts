import { join } from "node:path";
import { getHostPort, type ContainerSpec } from "../engine-runtime.ts";

export interface ProcessEnvironmentInput {
  spec: ContainerSpec;
  /** The folder that takes the place of the container's /data. */
  dataPath: string;
  tempPath: string;
  path: string;
  lang: string;
}

/** The whole environment of an engine's process. It has nothing of the orchestrator's own environment. */
export function toProcessEnvironment(input: ProcessEnvironmentInput): Record<string, string> {
  const { spec, dataPath, tempPath, path, lang } = input;
  return {
    PATH: path,
    LANG: lang,
    ...spec.environment,
    HOME: dataPath,
    TMPDIR: tempPath,
    SQLITE_DB_PATH: join(dataPath, "brain.sqlite"),
    CATALOG_DIR: spec.catalogPath,
    ENGINE_HOST: "127.0.0.1",
    ENGINE_PORT: String(getHostPort(spec)),
  };
}
