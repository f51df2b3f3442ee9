import type { Brain } from "./brain.ts";
import type { HumanQuestions } from "./human-questions.ts";
import type { TurnFeeds } from "./turn-feeds.ts";
import type { TurnsInFlight } from "./turns-in-flight.ts";

export interface EngineContext {
  readonly keyHash: Buffer;
  readonly catalogDir: string;
  readonly configFile: string;
  readonly brain: Brain;
  readonly turns: TurnsInFlight;
  readonly feeds: TurnFeeds;
  readonly questions: HumanQuestions;
  /** True after the first stop signal. A draining engine starts no new work. */
  isDraining(): boolean;
}
