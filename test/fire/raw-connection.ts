import { connect } from "node:net";

/** Far more than a reply needs, so a connection that takes longer hangs. */
const PATIENCE_MS = 20_000;

export interface SendOptions {
  /**
   * Closes our half of the connection after this time without a byte from the server. Needed for incomplete requests,
   * for which the server waits. By default our half stays open, so that no reply is lost.
   */
  quietMs?: number;
}

/** Writes bytes unchanged. Returns all bytes of the server, once the server has closed the connection. */
export async function sendBytes(
  url: string,
  bytes: string | Uint8Array,
  { quietMs = 0 }: SendOptions = {},
): Promise<string> {
  const socket = connect({ port: Number(new URL(url).port), host: "127.0.0.1", allowHalfOpen: true });
  const chunks: Buffer[] = [];
  // The server may close the connection while we still write.
  socket.on("error", () => {});
  socket.on("data", (chunk) => chunks.push(chunk));
  socket.on("end", () => socket.end());
  socket.setTimeout(quietMs, () => socket.end());
  socket.write(bytes);
  const closed = Promise.withResolvers<void>();
  socket.on("close", () => closed.resolve());
  const patience = setTimeout(
    () => closed.reject(new Error("the server did not close the connection")),
    PATIENCE_MS,
  );
  try {
    await closed.promise;
  } finally {
    clearTimeout(patience);
    socket.destroy();
  }
  return Buffer.concat(chunks).toString("latin1");
}
