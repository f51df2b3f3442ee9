import { existsSync } from "node:fs";
import { Agent } from "node:http";
import { homedir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import type Docker from "dockerode";
import { RuntimeFailure } from "../engine-runtime.ts";
import { toDockerFailure } from "./failure.ts";

export interface DockerClientOptions {
  /** `unix:///path`, `tcp://host:port`, `http(s)://host:port`; undefined is the usual socket. */
  dockerHost?: string | undefined;
  /** How long a call may take that is not told otherwise. */
  callTimeoutMs: number;
}

export interface DockerClient extends Disposable {
  readonly docker: Docker;
  readonly callTimeoutMs: number;
  /** Aborts when the client is disposed. */
  readonly closed: AbortSignal;
  /**
   * One call with a deadline. Fails only with a RuntimeFailure; a call that ran into its deadline is
   * `unreachable`, and the daemon may well carry it out.
   */
  call<T>(run: (docker: Docker, abortSignal: AbortSignal) => Promise<T>, timeoutMs?: number): Promise<T>;
}

export async function openDockerClient(options: DockerClientOptions): Promise<DockerClient> {
  // Loading dockerode costs 0.4 s and 21 MB, which only those pay who run on Docker.
  const { default: DockerClass } = await import("dockerode");
  // A connection per call: a kept one that a restarted daemon has closed would fail the next call for nothing.
  const agent = new DockerAgent({ keepAlive: false });
  const address = toDockerAddress(options.dockerHost);
  // The API version stays unset, since each pinned one is refused by some daemon. DOCKER_HOST and
  // DOCKER_CLIENT_TIMEOUT are read by dockerode itself, so what they would set is set here too.
  const docker = new DockerClass({
    host: undefined,
    socketPath: undefined,
    ...address,
    timeout: undefined,
    ...(address.protocol === "https" ? {} : { agent }),
  });
  const closing = new AbortController();
  return {
    docker,
    callTimeoutMs: options.callTimeoutMs,
    closed: closing.signal,
    call: (run, timeoutMs = options.callTimeoutMs) =>
      callWithLimits((abortSignal) => run(docker, abortSignal), { timeoutMs, closed: closing.signal }),
    [Symbol.dispose]: () => {
      closing.abort();
      agent.destroy();
    },
  };
}

/**
 * docker-modem prints each request for its debug log, whether or not anybody reads that, and prints the agent with all
 * that hangs from it: several milliseconds of CPU per call, unless the agent says how it is printed.
 */
class DockerAgent extends Agent {
  [inspect.custom](): string {
    return "DockerAgent";
  }
}

interface CallLimits {
  timeoutMs: number;
  closed: AbortSignal;
}

async function callWithLimits<T>(
  run: (abortSignal: AbortSignal) => Promise<T>,
  { timeoutMs, closed }: CallLimits,
): Promise<T> {
  const limit = new AbortController();
  const { promise: cutShort, reject } = Promise.withResolvers<never>();
  const cut = (why: string) => {
    reject(new RuntimeFailure("unreachable", why));
    limit.abort();
  };
  const onClosed = () => cut("the runtime was closed");
  const timer = setTimeout(() => cut(`the daemon did not answer within ${timeoutMs} ms`), timeoutMs);
  closed.addEventListener("abort", onClosed, { once: true });
  try {
    if (closed.aborted) onClosed();
    // dockerode passes the signal on to most calls and not to all, so the race ends the waiting in any case.
    return await Promise.race([cutShort, run(limit.signal)]);
  } catch (error) {
    throw toDockerFailure(error);
  } finally {
    clearTimeout(timer);
    closed.removeEventListener("abort", onClosed);
  }
}

type DockerAddress = Pick<Docker.DockerOptions, "socketPath" | "host" | "port" | "protocol">;

function toDockerAddress(dockerHost: string | undefined): DockerAddress {
  if (dockerHost === undefined || dockerHost === "") return { socketPath: findUsualSocket() };
  if (dockerHost.startsWith("unix://")) return { socketPath: dockerHost.slice("unix://".length) };
  if (dockerHost.startsWith("/")) return { socketPath: dockerHost };
  const url = URL.parse(dockerHost.includes("://") ? dockerHost : `tcp://${dockerHost}`);
  if (url === null || !["tcp:", "http:", "https:"].includes(url.protocol)) {
    throw new RuntimeFailure("refused", `not an address of a Docker daemon: ${dockerHost}`);
  }
  const secure = url.protocol === "https:" || url.port === "2376";
  return { host: url.hostname, port: url.port || "2375", protocol: secure ? "https" : "http" };
}

/** Docker Desktop on a Mac puts its socket under the home directory. */
function findUsualSocket(): string {
  const desktop = join(homedir(), ".docker", "run", "docker.sock");
  return !existsSync("/var/run/docker.sock") && existsSync(desktop) ? desktop : "/var/run/docker.sock";
}
