import { isDockerReachable } from "../server/runtime/docker/reachable.ts";
import { buildReferenceImage } from "../server/runtime/docker/reference-image.ts";
import type { Screen } from "./screen.ts";

/** The runtime of the demo's engines. */
export type RuntimeChoice =
  { kind: "docker"; image: string; dockerHost: string | undefined } | { kind: "process" };

interface ChooseRuntimeInput {
  /** `docker`, `process`, or undefined for Docker where it is usable. */
  wanted: string | undefined;
  dockerHost: string | undefined;
  screen: Screen;
}

const QUIET = { info: () => undefined };

/**
 * Chooses Docker if a daemon answers on this Linux machine, and builds the engine image; otherwise chooses processes.
 * Prints the choice and its reason.
 */
export async function chooseRuntime(input: ChooseRuntimeInput): Promise<RuntimeChoice> {
  const { wanted, dockerHost, screen } = input;
  const obstacle = await findObstacle(input);
  if (obstacle !== undefined) {
    if (wanted === "docker") throw new Error(`DEMO_BACKEND is docker, but ${obstacle}`);
    screen.print(`engines run as processes: ${obstacle}`);
    return { kind: "process" };
  }
  screen.print("engines run in Docker: a Docker daemon answers on this Linux machine");
  const image = await buildReferenceImage({ dockerHost, log: QUIET });
  screen.print(`image ${image}: built from this Node and engine/, without a registry`);
  screen.print("(the image stays, so that the next demo starts faster; its tag names its content)");
  return { kind: "docker", image, dockerHost };
}

async function findObstacle({ wanted, dockerHost }: ChooseRuntimeInput): Promise<string | undefined> {
  if (wanted === "process") return "DEMO_BACKEND is process";
  if (process.platform !== "linux") return "the image can only be built on Linux";
  if (dockerHost !== undefined && !/^(?:unix:\/\/)?\//.test(dockerHost)) {
    return "DOCKER_HOST is another machine, and the demo cannot reach the ports there";
  }
  return (await isDockerReachable(dockerHost)) ? undefined : "no Docker daemon answers";
}
