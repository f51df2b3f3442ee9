const MAX_OPEN_QUESTIONS = 1_000;
const ID_MAX_LENGTH = 512;

/** The questions to a person that a turn's engine has asked, and that have no answer yet. */
export class OpenQuestions {
  /** When each question was asked, in milliseconds, oldest first. Most turns never have one. */
  #askedAt: Map<QuestionId, number> | undefined;
  #hasSeveral = false;
  #onChange: (() => void) | undefined;

  /** More than one question was open at the same time. */
  get hasSeveral(): boolean {
    return this.#hasSeveral;
  }
  get isEmpty(): boolean {
    return (this.#askedAt?.size ?? 0) === 0;
  }
  /** When the oldest question was asked. undefined: there is none. */
  get oldestAt(): number | undefined {
    return this.#askedAt?.values().next().value;
  }

  /** Calls back after each change. undefined: no more. */
  onChange(callback: (() => void) | undefined): void {
    this.#onChange = callback;
  }

  ask(requestId: unknown, nowMs: number): void {
    const id = toQuestionId(requestId);
    this.#askedAt ??= new Map();
    if (this.#askedAt.size >= MAX_OPEN_QUESTIONS || this.#askedAt.has(id)) return;
    this.#askedAt.set(id, nowMs);
    if (this.#askedAt.size > 1) this.#hasSeveral = true;
    this.#onChange?.();
  }

  /** The engine says that a question is answered. Without a request id, all questions are. */
  resolve(requestId: unknown): void {
    if (requestId === undefined) this.#askedAt?.clear();
    else this.#askedAt?.delete(toQuestionId(requestId));
    this.#onChange?.();
  }

  /**
   * The engine accepted an answer that was sent at `sentAtMs`. If the engine does not say which question it answers, it
   * is the oldest one of that time.
   */
  accept(requestId: unknown, sentAtMs: number): void {
    if (requestId !== undefined) {
      this.resolve(requestId);
      return;
    }
    const [oldest] = this.#askedAt ?? [];
    if (oldest === undefined || oldest[1] > sentAtMs) return;
    this.#askedAt?.delete(oldest[0]);
    this.#onChange?.();
  }
}

/** undefined: a question without a usable id. */
type QuestionId = string | number | undefined;

/** Long ids would keep much memory, and other values are never equal. */
function toQuestionId(requestId: unknown): QuestionId {
  if (typeof requestId === "number") return requestId;
  return typeof requestId === "string" && requestId.length <= ID_MAX_LENGTH ? requestId : undefined;
}
