import { randomUUID } from "node:crypto";
import type { EngineConnections } from "../../server/engine-contract/connections.ts";
import { ExecuteBody } from "../../server/engine-contract/execute-body.ts";
import { sendExecute } from "../../server/engine-contract/execute.ts";
import { probeHealth } from "../../server/engine-contract/health.ts";
import { postRpc } from "../../server/engine-contract/rpc.ts";
import { LATE, type LateEngine } from "./late-engine.ts";

const apiKey = "ehe_thisIsTheEnginesPlaintextKey0000000000";
const never = new AbortController().signal;

/** Sends calls of all three kinds one after another. Returns what each call got instead of its own answer. */
export async function callLateEngine(
  connections: EngineConnections,
  engine: LateEngine,
  calls: number,
): Promise<string[]> {
  const wrong: string[] = [];
  for (let call = 0; call < calls; call += 1) {
    const nonce = `n${call}`;
    const kind = KINDS[call % KINDS.length] ?? callRpc;
    const got = await kind(connections, engine.url, nonce);
    if (got !== nonce) wrong.push(`${kind.name} ${nonce}: ${got}`);
    // Of several pauses, some end just when the late answer of the last call arrives.
    if (call % 4 === 0) await new Promise((resolve) => setTimeout(resolve, Math.random() * 20));
  }
  return wrong;
}

type Kind = (connections: EngineConnections, endpoint: string, nonce: string) => Promise<string>;

async function callRpc(...[connections, endpoint, nonce]: Parameters<Kind>): Promise<string> {
  const target = { endpoint, apiKey, interrupted: never };
  const request = { method: "skill.run", params: { nonce }, timeoutMs: 20_000, readOnly: false };
  return postRpc(connections, target, request).then(({ value }) => String(value), String);
}

async function probe(...[connections, endpoint, nonce]: Parameters<Kind>): Promise<string> {
  const { ready } = await probeHealth(connections, endpoint, { timeoutMs: 20_000 });
  return ready ? LATE : nonce;
}

async function execute(...[connections, endpoint, nonce]: Parameters<Kind>): Promise<string> {
  const closed = Promise.withResolvers<string>();
  let text = "";
  const sink = {
    onChunk: (chunk: Buffer) => void (text += chunk.toString()),
    onClose: (isClean: boolean, why: string) => closed.resolve(isClean ? text : why),
  };
  const answer = await sendExecute(
    connections,
    { endpoint, apiKey },
    {
      turnId: randomUUID(),
      body: new ExecuteBody({ message: { nonce }, taskId: nonce }),
      onAccepted: () => sink,
      signal: never,
      errorBodyMs: 20_000,
    },
  );
  if (answer.kind !== "streaming") return answer.kind;
  const got = await closed.promise;
  answer.close();
  return /"text":"(\w+)"/.exec(got)?.[1] ?? got;
}

const KINDS: readonly Kind[] = [callRpc, callRpc, probe, execute];
