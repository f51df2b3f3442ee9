import { createParser, type EventSourceMessage } from "eventsource-parser";

/** More than the largest event, however its text is escaped. */
const MAX_BUFFERED_CHARACTERS = 64 * 1024 * 1024;

interface ReadSseOptions {
  /** Called when no data has arrived for `silenceMs`. It must abort the body. */
  onSilence(): void;
  silenceMs: number;
}

/**
 * The messages of an event stream. Data is read only on demand, so a slow reader slows the server down.
 * Returns when the body ends, and drops an incomplete last message.
 */
export async function* readSse(
  body: ReadableStream<Uint8Array>,
  options: ReadSseOptions,
): AsyncGenerator<EventSourceMessage, void> {
  let messages: EventSourceMessage[] = [];
  const parser = createParser({
    maxBufferSize: MAX_BUFFERED_CHARACTERS,
    onEvent: (message) => {
      messages.push(message);
    },
    onError: (error) => {
      if (error.type === "max-buffer-size-exceeded") throw error;
    },
  });
  // Versions of the parser differ in how they skip a byte-order mark, and Node's decoder may skip two. So neither of them
  // may do it: after this blank line the parser does not.
  parser.feed("\n");
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let isStart = true;
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await readWithin(reader, options);
      if (done) return;
      const text = decoder.decode(value, { stream: true });
      parser.feed(isStart && text.startsWith("\uFEFF") ? text.slice(1) : text);
      if (text !== "") isStart = false;
      const complete = messages;
      messages = [];
      // `yield*` would cost one more await for each message.
      for (const message of complete) yield message;
    }
  } finally {
    // A reader that stops early closes the connection. Cancelling a broken body fails, which does no harm.
    await reader.cancel().catch(() => undefined);
  }
}

async function readWithin(reader: ReadableStreamDefaultReader<Uint8Array>, options: ReadSseOptions) {
  const timer = setTimeout(() => options.onSilence(), options.silenceMs);
  try {
    return await reader.read();
  } finally {
    clearTimeout(timer);
  }
}
