import type { AddressInfo, Server } from "node:net";

/** Says where the server listens, in the form in which the service itself says it. */
export function tellListening(server: Server): void {
  const { port } = server.address() as AddressInfo;
  process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${port}`, msg: "listening" })}\n`);
}
