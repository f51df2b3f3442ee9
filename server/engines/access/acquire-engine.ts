import type { EngineUser } from "../../../db/engines.ts";
import { abortable } from "../../time/abortable.ts";
import { Deadline } from "../../time/deadline.ts";
import { engineNotFound } from "../model/absent-engine-errors.ts";
import type { AcquireOptions } from "./engine-holds.ts";
import type { EngineReads } from "./engine-reads.ts";
import { holdEngine, toWaitError, type HeldEngine, type HoldContext } from "./hold-engine.ts";

export interface AcquireEngineInput extends EngineUser, AcquireOptions {
  /** How long to wait for a boot or a closed gate. */
  timeoutMs: number;
  /** Refuse with GENERATION_CHANGED when the engine is of another generation. */
  expectGeneration?: number | undefined;
  signal?: AbortSignal | undefined;
}

export type AcquireContext = HoldContext & { engineReads: EngineReads };

/**
 * Finds the user's engine and holds it, after a boot or a closed gate if need be.
 *
 * @throws ENGINE_NOT_FOUND, what `holdEngine` throws, and DEADLINE_EXCEEDED when the engine was not usable in time.
 */
export async function acquireEngine(ctx: AcquireContext, input: AcquireEngineInput): Promise<HeldEngine> {
  const { timeoutMs, expectGeneration, holder, passesGate } = input;
  let engineId: string | undefined;
  using deadline = new Deadline(timeoutMs, [input.signal]);
  const { signal } = deadline;
  try {
    for (;;) {
      signal.throwIfAborted();
      const { gateChanges, kept } = ctx.holds;
      const { mark } = kept;
      const nowMs = ctx.clock.now();
      // A caller that names a generation wants to know of a restart that this replica has not noticed yet.
      const known = expectGeneration === undefined ? kept.find(input, nowMs) : undefined;
      const engine = known ?? (await abortable(ctx.engineReads.find(input), signal));
      if (engine === undefined) throw engineNotFound();
      engineId = engine.id;
      const hold = { engine, gateChanges, expectGeneration, holder, passesGate };
      const held = await holdEngine(ctx, hold, signal);
      if (!held) continue;
      if (!known) kept.keep(input, engine, { mark, nowMs });
      return held;
    }
  } catch (error) {
    throw toWaitError(ctx, error, { deadline, timeoutMs, engineId });
  }
}
