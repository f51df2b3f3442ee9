import type { Brain } from "./brain.ts";
import { EngineError } from "./engine-error.ts";

export interface Question {
  readonly requestId: string;
  readonly taskId: string;
  readonly turnId: string;
  readonly kind: string;
  readonly question: string;
}

export interface HumanAnswer {
  readonly answer: string;
  readonly feedback?: string;
  readonly contentBlocks: number;
}

interface Waiter {
  readonly requestId: string;
  readonly resolve: (answer: HumanAnswer) => void;
  readonly reject: (reason: unknown) => void;
}

/** The turns that wait for a human. The brain stores their questions; the waiting ends with the process. */
export class HumanQuestions {
  readonly #brain: Pick<Brain, "sql">;
  readonly #waiters = new Map<string, Waiter>();
  #closedBy: EngineError | undefined;

  constructor(brain: Pick<Brain, "sql">) {
    this.#brain = brain;
  }

  get size(): number {
    return this.#waiters.size;
  }

  /**
   * Stores a question and resolves with its answer. Rejects on {@link close}, and throws after it. If the signal aborts,
   * the question is withdrawn, and the promise rejects with the signal's reason.
   */
  ask(question: Question, signal: AbortSignal): Promise<HumanAnswer> {
    if (this.#closedBy) throw this.#closedBy;
    const { promise, resolve, reject } = Promise.withResolvers<HumanAnswer>();
    const withdraw = (): void => {
      this.#take(question.taskId);
      reject(signal.reason);
    };
    signal.addEventListener("abort", withdraw, { once: true });
    // This also handles a rejection while the turn still sends its request event, before it awaits the promise.
    const stopListening = (): void => signal.removeEventListener("abort", withdraw);
    promise.then(stopListening, stopListening);
    this.#brain.sql.run`
      INSERT OR REPLACE INTO pending_questions (request_id, task_id, turn_id, kind, question, asked_at)
      VALUES (${question.requestId}, ${question.taskId}, ${question.turnId}, ${question.kind},
        ${question.question}, ${new Date().toISOString()})`;
    this.#waiters.set(question.taskId, { requestId: question.requestId, resolve, reject });
    return promise;
  }

  /** Answers the open question of a task and returns its request id. `requestId`: answer only this question. */
  respond(taskId: string, answer: HumanAnswer, requestId: unknown): string {
    const waiter = this.#waiters.get(taskId);
    if (!waiter) throw new EngineError(422, "NO_PENDING_REQUEST", "this task has no open question");
    if (requestId !== undefined && requestId !== waiter.requestId) {
      throw new EngineError(422, "NO_PENDING_REQUEST", "this task has another open question, not this one");
    }
    this.#take(taskId);
    waiter.resolve(answer);
    return waiter.requestId;
  }

  /** Removes the question of a task. */
  #take(taskId: string): void {
    this.#waiters.delete(taskId);
    this.#brain.sql.run`DELETE FROM pending_questions WHERE task_id = ${taskId}`;
  }

  listPending(): Record<string, unknown>[] {
    return this.#brain.sql.all`
      SELECT request_id, task_id, turn_id, kind, question, asked_at FROM pending_questions ORDER BY asked_at`;
  }

  /** Rejects all open questions and every later one with `reason`. */
  close(reason: EngineError): void {
    this.#closedBy = reason;
    this.#brain.sql.run`DELETE FROM pending_questions`;
    for (const waiter of this.#waiters.values()) waiter.reject(reason);
    this.#waiters.clear();
  }
}
