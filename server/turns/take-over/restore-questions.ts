import { readChunksAboutQuestions } from "../../../db/turn-events.ts";
import type { TurnRow } from "../../../db/turns.ts";
import { fieldOf } from "../../json/field-of.ts";
import type { OpenQuestions } from "../model/open-questions.ts";
import type { TurnEvent } from "../read/turn-batch.ts";
import type { TurnContext } from "../turn-context.ts";

/**
 * Notes the questions in a turn's log that no person has answered yet, each with the time at which it was asked. Reads only
 * the newest of the log's rows that mention a question.
 */
export async function restoreQuestions(
  ctx: Pick<TurnContext, "raw" | "seals">,
  turn: TurnRow,
  questions: Pick<OpenQuestions, "ask" | "resolve">,
): Promise<void> {
  const chunks = await ctx.seals.open(turn, await readChunksAboutQuestions(ctx.raw, turn));
  for (const { events } of chunks) {
    for (const { type, at, data } of JSON.parse(events ?? "[]") as TurnEvent[]) {
      if (type === "hitl_request") questions.ask(fieldOf(data, "request_id"), Date.parse(at));
      if (type === "hitl_resolved") questions.resolve(fieldOf(data, "request_id"));
    }
  }
}
