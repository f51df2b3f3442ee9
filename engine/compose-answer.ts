import type { HumanAnswer } from "./human-questions.ts";
import type { MessageContent } from "./threads.ts";

const QUOTE_LENGTH = 200;

interface AnswerInput {
  readonly exchange: number;
  readonly message: MessageContent;
  readonly previous: MessageContent | undefined;
  readonly human: HumanAnswer | undefined;
}

/** Uses nothing but the thread, so the same thread always gets the same answer. */
export function composeAnswer({ exchange, message, previous, human }: AnswerInput): string {
  const parts = [`This is message ${exchange} of this thread and it has ${countWords(message.text)} words.`];
  parts.push(
    previous ? `The message before it was: "${toQuote(previous.text)}".` : "I remember no message before it.",
  );
  if (message.media.length > 0) parts.push(`Attached: ${message.media.join(", ")}.`);
  if (human) parts.push(`A human answered: "${toQuote(human.answer)}".`);
  if (human?.feedback !== undefined) parts.push(`With feedback: "${toQuote(human.feedback)}".`);
  if (human && human.contentBlocks > 0) parts.push(`With ${human.contentBlocks} content blocks.`);
  return parts.join(" ");
}

/** The beginning of a text, on one line and at most 200 characters long. */
export function toQuote(text: string): string {
  const start = text.slice(0, QUOTE_LENGTH).toWellFormed().replaceAll(/\s+/g, " ").trim();
  return text.length > QUOTE_LENGTH ? `${start}…` : start;
}

export function countWords(text: string): number {
  // Counts without copying each word, because a message may have many megabytes.
  const word = /\S+/g;
  let words = 0;
  while (word.test(text)) words += 1;
  return words;
}

/** A token of the reference engine is a word with the white space after it. */
export function toTokens(text: string): string[] {
  return text.match(/\S+\s*/g) ?? [];
}

/** Exactly `count` tokens: cut off, or filled up with words that contain their own number. */
export function fitTokens(tokens: readonly string[], count: number | undefined): string[] {
  if (count === undefined) return [...tokens];
  return Array.from({ length: count }, (_, index) => {
    const token = tokens[index]?.trimEnd() ?? `word-${index + 1}`;
    return index + 1 < count ? `${token} ` : token;
  });
}
