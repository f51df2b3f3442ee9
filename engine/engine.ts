import { setTimeout as sleep } from "node:timers/promises";
import { openBrain, type Brain } from "./brain.ts";
import type { EngineContext } from "./engine-context.ts";
import type { EngineEnv } from "./engine-env.ts";
import { engineStopping } from "./engine-error.ts";
import { openEngineServer } from "./engine-server.ts";
import { HumanQuestions } from "./human-questions.ts";
import { interruptLeftoverTurns } from "./interrupt-leftover-turns.ts";
import { TurnFeeds } from "./turn-feeds.ts";
import { TurnsInFlight } from "./turns-in-flight.ts";

export interface Engine {
  readonly port: number;
  /** Finishes the turns in flight, then closes the brain. */
  close(): Promise<void>;
}

export interface EngineOptions extends EngineEnv {
  readonly configFile: string;
  /** How long turns may continue after the engine was told to stop. */
  readonly drainLimitMs: number;
  /** How long turns that are aborted then may take to send their last event. */
  readonly abortLimitMs: number;
}

/** Opens the brain, ends the turns that a crash left running, and then listens. An open engine is ready. */
export async function openEngine(options: EngineOptions): Promise<Engine> {
  const brain = openBrain(options.brainPath);
  try {
    interruptLeftoverTurns(brain);
    return await serveBrain(brain, options);
  } catch (error) {
    brain.close();
    throw error;
  }
}

async function serveBrain(brain: Brain, options: EngineOptions): Promise<Engine> {
  let isDraining = false;
  const ctx: EngineContext = {
    keyHash: options.keyHash,
    catalogDir: options.catalogDir,
    configFile: options.configFile,
    brain,
    turns: new TurnsInFlight(),
    feeds: new TurnFeeds(),
    questions: new HumanQuestions(brain),
    isDraining: () => isDraining,
  };
  const { server, port } = await openEngineServer(ctx, options);
  const close = async (): Promise<void> => {
    isDraining = true;
    ctx.questions.close(engineStopping("the engine stopped while it waited for a human"));
    await drainTurns(ctx, options);
    await ctx.feeds.allEndedWithin(options.abortLimitMs);
    server.close();
    server.closeAllConnections();
    // A turn that waits for a slow reader ends now that its connection is cut. So does a replay. The brain stays open
    // until then.
    await Promise.all([ctx.turns.allEnded(), ctx.feeds.allEnded()]);
    brain.close();
  };
  return { port, close };
}

async function drainTurns(ctx: EngineContext, options: EngineOptions): Promise<void> {
  if (await endedWithin(ctx, options.drainLimitMs)) return;
  ctx.turns.abort();
  await endedWithin(ctx, options.abortLimitMs);
}

async function endedWithin(ctx: Pick<EngineContext, "turns">, ms: number): Promise<boolean> {
  const timer = new AbortController();
  const late = sleep(ms, false, { signal: timer.signal }).catch(() => false);
  try {
    return await Promise.race([ctx.turns.allEnded().then(() => true), late]);
  } finally {
    timer.abort();
  }
}
