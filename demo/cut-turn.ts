import { createClient, type Client } from "../client/index.ts";
import { openCutProxy } from "./cut-proxy.ts";
import type { Screen } from "./screen.ts";

interface CutTurnContext {
  screen: Screen;
  /** The service's URL. */
  url: string;
  tokenDelayMs: number;
  signal: AbortSignal;
}

interface Thread {
  userId: string;
  taskId: string;
}

/** The part of a turn that one reader has received. */
interface Reading {
  seqs: number[];
  text: string;
}

const WORDS = 40;
/** The proxy cuts the connection after the events with these sequence numbers. */
const CUTS: readonly number[] = [22, 41];
/** The second reader starts after this sequence number. */
const CURSOR = 30;

/** Runs a turn whose connection breaks twice, then reads the same turn again from the middle. */
export async function playCutTurn(
  ctx: CutTurnContext,
  product: { client: Client; apiKey: string },
  thread: Thread,
): Promise<void> {
  const { screen } = ctx;
  const title = "A turn whose connection is cut twice; the client resumes from its cursor";
  const { turnId, reading } = await screen.step(title, async () =>
    readThroughCuts(ctx, product.apiKey, thread),
  );
  await screen.step("The same turn, read again from a cursor: turns.events", async () => {
    const rest = await readFrom(product.client, turnId, CURSOR);
    screen.print(`after event ${CURSOR}: ${rest.seqs.length} events, ${toRange(rest.seqs)}`);
    screen.print(`the end is the same as for the first reader: "…${rest.text.slice(-32)}"`);
    checkComplete(rest.seqs, CURSOR + 1);
    const isSame = rest.seqs.at(-1) === reading.seqs.at(-1) && reading.text.endsWith(rest.text);
    if (!isSame) throw new Error("the second reading differs from the first");
  });
}

async function readThroughCuts(ctx: CutTurnContext, key: string, { userId, taskId }: Thread) {
  const { screen, signal } = ctx;
  await using wire = await openCutProxy(ctx.url);
  const client = createClient({ url: wire.url, key });
  signal.addEventListener("abort", () => client.close(), { once: true });
  const request = {
    message: "Write a long answer.",
    taskId,
    reference: { words: WORDS, delayMs: Math.max(ctx.tokenDelayMs, 1) },
  };
  const turn = client.execute({ userId, request });
  const reading: Reading = { seqs: [], text: "" };
  for await (const event of turn) {
    reading.seqs.push(event.seq);
    if (event.type === "text_delta") {
      reading.text += event.data.text;
      screen.flow(event.data.text);
    }
    if (!CUTS.includes(event.seq)) continue;
    wire.cut();
    screen.mark(`connection cut after event ${event.seq}`);
  }
  client.close();
  screen.print(`${CUTS.length} cuts, ${wire.connections} connections, 1 turn started`);
  screen.print(`${reading.seqs.length} events, ${toRange(reading.seqs)}: none lost, none twice`);
  checkComplete(reading.seqs, 1);
  return { turnId: turn.turnId, reading };
}

/** Reads the batches of `turns.events`. The id of each batch is the cursor to resume from. */
async function readFrom(client: Client, turnId: string, cursor: number): Promise<Reading> {
  const reading: Reading = { seqs: [], text: "" };
  const stream = client.api.turns.events.subscribe({ turnId, lastEventId: String(cursor) });
  for await (const { data } of stream) {
    for (const event of data.events) {
      reading.seqs.push(event.seq);
      if (event.type === "text_delta") reading.text += (event.data as { text: string }).text;
    }
    if (data.end) break;
  }
  return reading;
}

function checkComplete(seqs: readonly number[], first: number): void {
  if (seqs.some((seq, index) => seq !== first + index)) {
    throw new Error(`events are missing or duplicated, received: ${seqs.join(" ")}`);
  }
}

function toRange(seqs: readonly number[]): string {
  return `numbered ${seqs.at(0)} to ${seqs.at(-1)}`;
}
