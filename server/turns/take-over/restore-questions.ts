import type { RawSql } from "../../../db/client.ts";
import { readChunksAbout } from "../../../db/turn-events.ts";
import type { TurnRow } from "../../../db/turns.ts";
import { fieldOf } from "../../json/field-of.ts";
import type { OpenQuestions } from "../model/open-questions.ts";
import type { TurnEvent } from "../read/turn-batch.ts";

/**
 * Notes the questions in a turn's log that no person has answered yet, each with the time at which it was asked. Reads only
 * the newest of the log's rows that mention a question.
 */
export async function restoreQuestions(
  raw: RawSql,
  turn: TurnRow,
  questions: Pick<OpenQuestions, "ask" | "resolve">,
): Promise<void> {
  for (const events of await readChunksAbout(raw, turn, "hitl_")) {
    for (const { type, at, data } of JSON.parse(events) as TurnEvent[]) {
      if (type === "hitl_request") questions.ask(fieldOf(data, "request_id"), Date.parse(at));
      if (type === "hitl_resolved") questions.resolve(fieldOf(data, "request_id"));
    }
  }
}
