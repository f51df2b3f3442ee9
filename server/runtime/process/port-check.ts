import { once } from "node:events";
import { connect, createServer } from "node:net";
import { RuntimeFailure } from "../engine-runtime.ts";

const HOST = "127.0.0.1";
/** On the loopback interface an answer takes microseconds. A silent listener with a full backlog gives none. */
const CONNECT_TIMEOUT_MS = 1_000;

/**
 * Throws `port_taken` if another program has the port, or if anybody answers there. A rule of the firewall may lead the
 * port to a program that has not bound it.
 */
export async function assertPortFree(port: number): Promise<void> {
  try {
    await bindOnce(port);
  } catch (error) {
    // Only these say that the port is in use. Others, such as too many open files, say nothing about the port.
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code !== "EADDRINUSE" && code !== "EACCES" && code !== "EADDRNOTAVAIL") throw error;
    throw new RuntimeFailure("port_taken", `the host port ${port} of ${HOST} cannot be bound`, error);
  }
  if (await isRefused(port)) return;
  throw new RuntimeFailure("port_taken", `something answers at the host port ${port} of ${HOST}`);
}

async function bindOnce(port: number): Promise<void> {
  const server = createServer();
  server.listen({ port, host: HOST, exclusive: true });
  await once(server, "listening");
  server.close();
  await once(server, "close");
}

async function isRefused(port: number): Promise<boolean> {
  const socket = connect({ port, host: HOST });
  const answer = Promise.withResolvers<boolean>();
  socket.setTimeout(CONNECT_TIMEOUT_MS, () => answer.resolve(false));
  socket.once("connect", () => answer.resolve(false));
  socket.once("error", (error) => {
    const code = "code" in error ? error.code : undefined;
    if (code === "ECONNREFUSED" || code === "ECONNRESET") answer.resolve(code === "ECONNREFUSED");
    else answer.reject(error);
  });
  try {
    return await answer.promise;
  } finally {
    socket.destroy();
  }
}
