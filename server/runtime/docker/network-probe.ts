// Runs in a container on the engines' network, so it imports only Node's modules. Its arguments are addresses
// (`host:port`). Its exit code has a bit for each address that accepts a connection.
import { connect } from "node:net";
import { exit } from "node:process";

const TIMEOUT_MS = 2_000;

async function isReached(address: string): Promise<boolean> {
  const colon = address.lastIndexOf(":");
  const socket = connect({ host: address.slice(0, colon), port: Number(address.slice(colon + 1)) });
  const { promise, resolve } = Promise.withResolvers<boolean>();
  socket.setTimeout(TIMEOUT_MS, () => resolve(false));
  socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
  return promise.finally(() => socket.destroy());
}

const answers = await Promise.all(process.argv.slice(2).map(isReached));
exit(answers.reduce((code, reached, index) => code + (reached ? 2 ** index : 0), 0));
