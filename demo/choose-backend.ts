import { isDockerReachable } from "../server/runtime/docker/reachable.ts";
import { buildReferenceImage } from "../server/runtime/docker/reference-image.ts";
import type { Screen } from "./screen.ts";

/** Where the demo's engines run. */
export type Backend = { kind: "docker"; image: string; dockerHost: string | undefined } | { kind: "process" };

interface ChooseBackendInput {
  /** `docker`, `process`, or undefined: Docker where it can be used. */
  wanted: string | undefined;
  dockerHost: string | undefined;
  screen: Screen;
}

const QUIET = { info: () => undefined };

/** Docker when a daemon answers on this Linux, with an image built here and now; else processes. Says which and why. */
export async function chooseBackend(input: ChooseBackendInput): Promise<Backend> {
  const { wanted, dockerHost, screen } = input;
  const obstacle = await findObstacle(input);
  if (obstacle !== undefined) {
    if (wanted === "docker") throw new Error(`DEMO_BACKEND is docker, but ${obstacle}`);
    screen.say(`engines run as processes: ${obstacle}`);
    return { kind: "process" };
  }
  screen.say("engines run in Docker: a daemon answers on this Linux");
  const image = await buildReferenceImage({ dockerHost, log: QUIET });
  screen.say(`image ${image}, built from this Node and engine/, no registry asked`);
  screen.say("(it stays, named after its content, so that the next demo starts faster)");
  return { kind: "docker", image, dockerHost };
}

async function findObstacle({ wanted, dockerHost }: ChooseBackendInput): Promise<string | undefined> {
  if (wanted === "process") return "DEMO_BACKEND says so";
  if (process.platform !== "linux") return "the image can only be built on Linux";
  if (dockerHost !== undefined && !/^(?:unix:\/\/)?\//.test(dockerHost)) {
    return "DOCKER_HOST is another machine, whose ports are not here";
  }
  return (await isDockerReachable(dockerHost)) ? undefined : "no Docker daemon answers";
}
