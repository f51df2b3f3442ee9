import { existsSync } from "node:fs";
import { Agent } from "node:http";
import { homedir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import type Docker from "dockerode";
import { RuntimeFailure } from "../engine-runtime.ts";
import { toDockerFailure } from "./failure.ts";

export interface DockerClientOptions {
  /** `unix:///path`, `tcp://host:port` or `http(s)://host:port`. undefined: the default socket. */
  dockerHost?: string | undefined;
  /** The deadline of a call that sets no other. */
  callTimeoutMs: number;
}

export interface DockerClient extends Disposable {
  readonly docker: Docker;
  readonly callTimeoutMs: number;
  /** Aborts when the client is disposed. */
  readonly closed: AbortSignal;
  /**
   * Makes one call, with a deadline. Throws only RuntimeFailure. A call that reaches its deadline throws `unreachable`,
   * and the daemon may still complete it.
   */
  call<T>(run: (docker: Docker, abortSignal: AbortSignal) => Promise<T>, timeoutMs?: number): Promise<T>;
}

export async function openDockerClient(options: DockerClientOptions): Promise<DockerClient> {
  // Loading dockerode costs 0.4 s and 21 MB, so it is loaded only when the docker runtime is used.
  const { default: DockerClass } = await import("dockerode");
  // One connection for each call: a restarted daemon has closed a kept connection, and the next call on it would fail.
  const agent = new DockerAgent({ keepAlive: false });
  const address = toDockerAddress(options.dockerHost);
  // The API version stays unset, because some daemons refuse any fixed one. dockerode itself reads DOCKER_HOST and
  // DOCKER_CLIENT_TIMEOUT, so the options here override host, socketPath and timeout.
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
 * docker-modem formats each request for its debug log, even if that log is off. Formatting a plain agent with all its
 * sockets takes several milliseconds of CPU for each call. This agent formats as its name.
 */
class DockerAgent extends Agent {
  [inspect.custom](): string {
    return "DockerAgent";
  }
}

async function callWithLimits<T>(
  run: (abortSignal: AbortSignal) => Promise<T>,
  { timeoutMs, closed }: { timeoutMs: number; closed: AbortSignal },
): Promise<T> {
  const limit = new AbortController();
  const { promise: limitReached, reject } = Promise.withResolvers<never>();
  const abort = (why: string) => {
    reject(new RuntimeFailure("unreachable", why));
    limit.abort();
  };
  const onClosed = () => abort("the runtime was closed");
  const timer = setTimeout(() => abort(`the Docker daemon did not answer within ${timeoutMs} ms`), timeoutMs);
  closed.addEventListener("abort", onClosed, { once: true });
  try {
    if (closed.aborted) onClosed();
    // Some of dockerode's calls ignore the signal. The race ends the wait for those too.
    return await Promise.race([limitReached, run(limit.signal)]);
  } catch (error) {
    throw toDockerFailure(error);
  } finally {
    clearTimeout(timer);
    closed.removeEventListener("abort", onClosed);
  }
}

type DockerAddress = Pick<Docker.DockerOptions, "socketPath" | "host" | "port" | "protocol">;

function toDockerAddress(dockerHost: string | undefined): DockerAddress {
  if (dockerHost === undefined || dockerHost === "") return { socketPath: findDefaultSocket() };
  if (dockerHost.startsWith("unix://")) return { socketPath: dockerHost.slice("unix://".length) };
  if (dockerHost.startsWith("/")) return { socketPath: dockerHost };
  const url = URL.parse(dockerHost.includes("://") ? dockerHost : `tcp://${dockerHost}`);
  if (url === null || !["tcp:", "http:", "https:"].includes(url.protocol)) {
    const problem = `"${dockerHost}" is not the address of a Docker daemon`;
    throw new RuntimeFailure("refused", `${problem}: use unix:///path or tcp://host:port`);
  }
  const secure = url.protocol === "https:" || url.port === "2376";
  return { host: url.hostname, port: url.port || "2375", protocol: secure ? "https" : "http" };
}

/** On macOS, Docker Desktop puts its socket under the home directory. */
function findDefaultSocket(): string {
  const desktop = join(homedir(), ".docker", "run", "docker.sock");
  return !existsSync("/var/run/docker.sock") && existsSync(desktop) ? desktop : "/var/run/docker.sock";
}
