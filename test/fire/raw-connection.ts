import { connect } from "node:net";

/** Nobody takes so long but who hangs. */
const PATIENCE_MS = 20_000;

export interface SendOptions {
  /**
   * After this long without a word our half of the connection is closed, and whatever the server had still to say is
   * lost. Not at all by default: for what the server can make sense of, or no sense at all.
   */
  quietMs?: number;
}

/** Writes bytes as they are, and resolves with all that came back once the server has closed the connection. */
export async function sendBytes(
  url: string,
  bytes: string | Uint8Array,
  { quietMs = 0 }: SendOptions = {},
): Promise<string> {
  const socket = connect({ port: Number(new URL(url).port), host: "127.0.0.1", allowHalfOpen: true });
  const chunks: Buffer[] = [];
  // A server may close while we still write, and that is an answer too.
  socket.on("error", () => {});
  socket.on("data", (chunk) => chunks.push(chunk));
  socket.on("end", () => socket.end());
  socket.setTimeout(quietMs, () => socket.end());
  socket.write(bytes);
  const closed = Promise.withResolvers<void>();
  socket.on("close", () => closed.resolve());
  const patience = setTimeout(
    () => closed.reject(new Error("the server left a connection hanging")),
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
