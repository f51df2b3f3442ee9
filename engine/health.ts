import { readdir } from "node:fs/promises";
import type { EngineContext } from "./engine-context.ts";
import { countThreads } from "./threads.ts";

export interface Health {
  /** `ok` only when the engine accepts turns. */
  readonly status: "ok" | "draining" | "degraded";
  readonly uptime_seconds: number;
  readonly subsystems: Readonly<Record<string, { readonly ok: boolean } & Readonly<Record<string, unknown>>>>;
}

export async function checkHealth(ctx: EngineContext): Promise<Health> {
  const subsystems = {
    brain: checkBrain(ctx),
    catalog: await checkCatalog(ctx),
    turns: { ok: !ctx.isDraining(), in_flight: ctx.turns.size, waiting_for_human: ctx.questions.size },
  };
  const works = subsystems.brain.ok && subsystems.catalog.ok;
  const status = ctx.isDraining() ? "draining" : works ? "ok" : "degraded";
  return { status, uptime_seconds: process.uptime(), subsystems };
}

function checkBrain(ctx: Pick<EngineContext, "brain">): { ok: boolean; threads?: number } {
  try {
    return { ok: true, threads: countThreads(ctx.brain) };
  } catch {
    return { ok: false };
  }
}

/** An empty catalog is fine. An unreadable one means that the mount is wrong. */
async function checkCatalog(
  ctx: Pick<EngineContext, "catalogDir">,
): Promise<{ ok: boolean; entries?: number; core_soul?: boolean }> {
  try {
    const entries = await readdir(ctx.catalogDir);
    return { ok: true, entries: entries.length, core_soul: entries.includes("core_soul.json") };
  } catch {
    return { ok: false };
  }
}
