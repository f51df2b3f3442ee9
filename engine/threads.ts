import type { Brain } from "./brain.ts";

type Sql = Pick<Brain, "sql">;
export type Role = "user" | "assistant";

export interface MessageContent {
  readonly text: string;
  /** The types of the attachments. The brain does not store their bytes. */
  readonly media: readonly string[];
}

export interface Message {
  readonly messageId: string;
  readonly taskId: string;
  /** A user's message and its answer are one exchange, counted from 1 in each thread. */
  readonly exchange: number;
  readonly role: Role;
  readonly content: MessageContent;
  readonly createdAt: string;
}

export interface Thread {
  readonly taskId: string;
  readonly workingMemory: unknown;
  readonly createdAt: string;
  readonly updatedAt: string;
}

export function touchThread(brain: Sql, taskId: string): void {
  const now = new Date().toISOString();
  brain.sql.run`
    INSERT INTO threads (task_id, created_at, updated_at) VALUES (${taskId}, ${now}, ${now})
    ON CONFLICT (task_id) DO UPDATE SET updated_at = excluded.updated_at`;
}

export function setWorkingMemory(brain: Sql, taskId: string, memory: unknown): void {
  brain.sql.run`UPDATE threads SET working_memory = ${JSON.stringify(memory)} WHERE task_id = ${taskId}`;
}

export function findThread(brain: Sql, taskId: string): Thread | undefined {
  const row = brain.sql.get`SELECT * FROM threads WHERE task_id = ${taskId}`;
  return row && toThread(row);
}

export function listThreads(brain: Sql, limit: number): Thread[] {
  return brain.sql.all`SELECT * FROM threads ORDER BY updated_at DESC, task_id LIMIT ${limit}`.map(toThread);
}

export function countThreads(brain: Sql): number {
  return Number(brain.sql.get`SELECT count(*) AS n FROM threads`?.["n"]);
}

export function addMessage(brain: Sql, message: Message): void {
  brain.sql.run`
    INSERT INTO messages (message_id, task_id, exchange, role, content, created_at)
    VALUES (${message.messageId}, ${message.taskId}, ${message.exchange}, ${message.role},
      ${JSON.stringify(message.content)}, ${message.createdAt})`;
}

export function setMessageContent(brain: Sql, messageId: string, content: MessageContent): void {
  brain.sql.run`UPDATE messages SET content = ${JSON.stringify(content)} WHERE message_id = ${messageId}`;
}

export function findMessage(brain: Sql, taskId: string, messageId: string): Message | undefined {
  const row = brain.sql.get`SELECT * FROM messages WHERE task_id = ${taskId} AND message_id = ${messageId}`;
  return row && toMessage(row);
}

export function findUserMessage(brain: Sql, taskId: string, exchange: number): Message | undefined {
  const row = brain.sql.get`
    SELECT * FROM messages WHERE task_id = ${taskId} AND exchange = ${exchange} AND role = 'user'`;
  return row && toMessage(row);
}

/** Oldest first. */
export function listMessages(brain: Sql, taskId: string): Message[] {
  return brain.sql.all`SELECT * FROM messages WHERE task_id = ${taskId} ORDER BY exchange, role DESC`.map(
    toMessage,
  );
}

export function countMessages(brain: Sql, taskId: string): number {
  return Number(brain.sql.get`SELECT count(*) AS n FROM messages WHERE task_id = ${taskId}`?.["n"]);
}

/** 0 when the thread is empty. */
export function findLastExchange(brain: Sql, taskId: string): number {
  return Number(
    brain.sql.get`SELECT coalesce(max(exchange), 0) AS n FROM messages WHERE task_id = ${taskId}`?.["n"],
  );
}

/** Forgets the answer of this exchange and all later exchanges. */
export function forgetAfterMessage(brain: Sql, taskId: string, exchange: number): void {
  brain.sql.run`
    DELETE FROM messages WHERE task_id = ${taskId}
    AND (exchange > ${exchange} OR (exchange = ${exchange} AND role = 'assistant'))`;
}

/** Returns the number of forgotten messages. */
export function forgetThroughExchange(brain: Sql, taskId: string, exchange: number): number {
  const result = brain.sql.run`DELETE FROM messages WHERE task_id = ${taskId} AND exchange <= ${exchange}`;
  return Number(result.changes);
}

type Row = Readonly<Record<string, unknown>>;

function toThread(row: Row): Thread {
  return {
    taskId: String(row["task_id"]),
    workingMemory: JSON.parse(String(row["working_memory"])),
    createdAt: String(row["created_at"]),
    updatedAt: String(row["updated_at"]),
  };
}

function toMessage(row: Row): Message {
  return {
    messageId: String(row["message_id"]),
    taskId: String(row["task_id"]),
    exchange: Number(row["exchange"]),
    role: row["role"] === "user" ? "user" : "assistant",
    content: JSON.parse(String(row["content"])) as MessageContent,
    createdAt: String(row["created_at"]),
  };
}
