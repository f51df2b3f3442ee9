import { createParser, type EventSourceMessage } from "eventsource-parser";

/** More than any single event may be, however its text is escaped. */
const MAX_BUFFERED_CHARACTERS = 64 * 1024 * 1024;

interface ReadSseOptions {
  /** Called when nothing came for `silenceMs`; it shall abort the body. */
  onSilence(): void;
  silenceMs: number;
}

/**
 * The messages of an event stream, read no faster than they are taken: a slow reader leaves them with the server.
 * Returns when the body ends, and drops a message that is cut off.
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
  const decoder = new TextDecoder();
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await readWithin(reader, options);
      if (done) return;
      parser.feed(decoder.decode(value, { stream: true }));
      const taken = messages;
      messages = [];
      // Not `yield*`, which waits some more for each.
      for (const message of taken) yield message;
    }
  } finally {
    // Whoever stops early leaves the connection; a body that broke has nothing to cancel.
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
