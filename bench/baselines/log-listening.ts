import type { AddressInfo, Server } from "node:net";

/** Logs the server's URL in the format of the service's own log. */
export function logListening(server: Server): void {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${port}`, msg: "listening" })}\n`);
}
