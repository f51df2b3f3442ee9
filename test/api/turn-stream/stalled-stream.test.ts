import { randomUUID } from "node:crypto";
import { connect, type Socket } from "node:net";
import { expect, test, vi } from "vitest";
import type { Behaviour } from "../../rpc/hostile-engine.ts";
import { ADMIN_KEY, type Api, openApi } from "../open-api.ts";

/** More than the kernel takes for a connection whose reader takes nothing. */
const EVENTS = 5_000;
const PAYLOAD = "x".repeat(1_000);

const flood: Behaviour = (response) => {
  response.writeHead(200, { "content-type": "text/event-stream" });
  for (let seq = 1; seq <= EVENTS; seq += 1) response.write(`data: {"n":${seq},"x":"${PAYLOAD}"}\n\n`);
};

async function openFlood(api: Api) {
  const { productId, apiKey } = await api.register("stalled");
  await api.mutate("engines.provision", { key: apiKey, input: { userId: "ada" } });
  api.behave("/execute", flood);
  const turnId = randomUUID();
  const input = { turnId, userId: "ada", request: { message: "hi", taskId: turnId } };
  const { keyId, apiKey: readKey } = await api.issue(productId);
  await api.mutate("turns.start", { key: apiKey, input });
  const turn = api.ctx.turns.find(productId, turnId);
  if (turn === undefined) throw new Error("the turn is not live");
  return { turnId, turn, apiKey, readKey, keyId };
}

const toTrpcPath = (turnId: string) =>
  `/trpc/turns.events?input=${encodeURIComponent(JSON.stringify({ turnId }))}`;
const toRawPath = (turnId: string) => `/v1/turns/${turnId}/events`;

/** Opens a stream that nobody reads, and waits until its reader has left the turn for want of room. */
async function openStalled(
  api: Api,
  { turn, turnId, readKey }: Awaited<ReturnType<typeof openFlood>>,
  toPath = toTrpcPath,
): Promise<{ socket: Socket; isClosed: () => boolean }> {
  const [join, leave] = [vi.spyOn(turn, "join"), vi.spyOn(turn, "leave")];
  const socket = connect(Number(new URL(api.url).port), "127.0.0.1");
  socket.pause();
  let closed = false;
  socket.on("error", () => {});
  socket.on("close", () => (closed = true));
  socket.write(`GET ${toPath(turnId)} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${readKey}\r\n\r\n`);
  let before = 0;
  await expect
    .poll(() => {
      const count = leave.mock.calls.length;
      const isStalled = count > 0 && count === before && join.mock.calls.length <= count;
      before = count;
      return isStalled;
    })
    .toBe(true);
  // A paused socket notices that its connection is gone only when it writes.
  const isClosed = () => {
    if (!closed) socket.write("x");
    return closed;
  };
  return { socket, isClosed };
}

test.each([
  ["of tRPC", toTrpcPath],
  ["of a raw route", toRawPath],
])(
  "a stalled stream %s ends soon after a revocation of its key, and its reader resumes with another key",
  async (_what, toPath) => {
    await using api = await openApi();
    const world = await openFlood(api);
    const { socket, isClosed } = await openStalled(api, world, toPath);
    const chunks: string[] = [];
    expect(isClosed()).toBe(false);
    await api.mutate("platformKeys.revoke", { key: ADMIN_KEY, input: { keyId: world.keyId } });
    await expect.poll(isClosed).toBe(true);

    const other = await openStalled(api, { ...world, readKey: world.apiKey }, toPath);
    other.socket.on("data", (chunk: Buffer) => chunks.push(chunk.toString("latin1")));
    other.socket.resume();
    const hasLast = () => chunks.slice(-10).join("").includes(`"n":${EVENTS},`);
    await expect.poll(hasLast, { timeout: 120_000 }).toBe(true);
    const seen = [...chunks.join("").matchAll(/"n":(\d+),/g)].map(([, n]) => Number(n));
    expect(seen).toEqual(Array.from({ length: EVENTS }, (_, index) => index + 1));
    other.socket.destroy();
    socket.destroy();
  },
);

test("a stalled stream does not delay the close of the server", async () => {
  await using api = await openApi();
  const { socket } = await openStalled(api, await openFlood(api));
  // Without a limit of its own the close would wait for this long.
  await api.server.close(3_600_000);
  socket.destroy();
});
