import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { ADMIN_KEY, callProcedure, type Service } from "../service/spawn-service.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { startFloodService } from "./flood-service.ts";
import { type Inspector, openInspector } from "./inspector.ts";
import { type NumberReader, openNumberReader, type Wire } from "./number-reader.ts";

const STAGE_ENGINE = fileURLToPath(new URL("stage-engine.ts", import.meta.url));

/** A part of a turn of the stage engine. */
export interface Stage {
  events: number;
  /** Of each event, besides its number. */
  bytes: number;
  /** Events that the engine writes at once. */
  perPiece: number;
  intervalMs: number;
}

export interface StageHouse extends AsyncDisposable {
  readonly service: Service;
  readonly inspector: Inspector;
  /** Starts a turn and returns its id. */
  start(stages: readonly Stage[]): Promise<string>;
  /** Lets all turns begin their next stage. */
  next(): Promise<void>;
  read(turnId: string, wire: Wire, afterSeq?: number): NumberReader;
  lastSeq(turnId: string): Promise<number>;
}

/** The service as a process with a bounded heap, and a user whose engine plays stages. */
export async function openStageHouse(options: { heapMb: number }): Promise<StageHouse> {
  await using stack = new AsyncDisposableStack();
  const home = stack.use(await openTempDir());
  const database = stack.use(await openTestDatabase());
  const service = stack.use(
    await startFloodService({
      dataDir: home.path,
      databaseUrl: database.url,
      more: {
        ORCH_ENGINE_COMMAND: `${process.execPath} ${STAGE_ENGINE}`,
        // With a small heap Node also makes the nursery small, and collects garbage half of the time.
        NODE_OPTIONS: `--inspect=127.0.0.1:0 --max-old-space-size=${options.heapMb} --max-semi-space-size=16`,
      },
    }),
  );
  const inspector = await openInspector(service.output());
  // A process waits for its debugger before it exits, so this is disposed first.
  stack.use(inspector);
  const operator = { url: service.url, key: ADMIN_KEY };
  const { data } = await callProcedure(operator, "products.register", { slug: "stage", name: "Stage" });
  const caller = { url: service.url, key: String(data["apiKey"]) };
  const call = async (procedure: string, input: object) => {
    const reply = await callProcedure(caller, procedure, input);
    expect(reply.status, `${procedure}: ${JSON.stringify(reply)}`).toBe(200);
    return reply.data;
  };
  await call("engines.provision", { userId: "ada" });
  stack.defer(async () => void (await call("engines.destroy", { userId: "ada", whenBusy: "interrupt" })));
  const opened = stack.move();
  return {
    service,
    inspector,
    start: async (stages) => {
      const turnId = randomUUID();
      const request = { message: JSON.stringify(stages), taskId: turnId };
      await call("turns.start", { turnId, userId: "ada", request });
      return turnId;
    },
    next: async () => void (await call("rpc.call", { userId: "ada", method: "skill.next" })),
    read: (turnId, wire, afterSeq = 0) => openNumberReader({ ...caller, turnId, wire, afterSeq }),
    lastSeq: async (turnId) => Number((await call("turns.get", { turnId }))["lastSeq"]),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}
