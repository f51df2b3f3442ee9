const MAX_OPEN_QUESTIONS = 1_000;
const ID_MAX_LENGTH = 512;

/** One question to a person. */
export interface OpenQuestion {
  /** In milliseconds. */
  readonly askedAt: number;
}

/** The questions to a person that a turn's engine has asked, and that have no answer yet. */
export class OpenQuestions {
  /** Oldest first. Most turns never have one. */
  #open: Map<QuestionId, OpenQuestion> | undefined;
  #hasSeveral = false;
  #onChange: (() => void) | undefined;

  /** More than one question was open at the same time. */
  get hasSeveral(): boolean {
    return this.#hasSeveral;
  }
  get isEmpty(): boolean {
    return (this.#open?.size ?? 0) === 0;
  }
  /** undefined: there is none. */
  get oldest(): OpenQuestion | undefined {
    return this.#open?.values().next().value;
  }

  has(requestId: string | number): boolean {
    return this.#open?.has(requestId) === true;
  }

  /** Calls back after each change. undefined: no more. */
  onChange(callback: (() => void) | undefined): void {
    this.#onChange = callback;
  }

  ask(requestId: unknown, nowMs: number): void {
    const id = toQuestionId(requestId);
    this.#open ??= new Map();
    if (this.#open.size >= MAX_OPEN_QUESTIONS || this.#open.has(id)) return;
    this.#open.set(id, { askedAt: nowMs });
    if (this.#open.size > 1) this.#hasSeveral = true;
    this.#onChange?.();
  }

  /** The engine says that a question is answered. Without a request id, all questions are. */
  resolve(requestId: unknown): void {
    if (requestId === undefined) this.#open?.clear();
    else this.#open?.delete(toQuestionId(requestId));
    this.#onChange?.();
  }

  /**
   * The engine accepted an answer. If the engine does not say which question it answers, it is the question that was the
   * oldest one when the answer was sent. That question may be closed by now: then no other one closes.
   */
  accept(requestId: unknown, oldestAtSending: OpenQuestion | undefined): void {
    if (requestId !== undefined) {
      this.resolve(requestId);
      return;
    }
    const { oldest } = this;
    if (oldest === undefined || oldest !== oldestAtSending) return;
    const [id] = this.#open?.keys() ?? [];
    this.#open?.delete(id);
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
