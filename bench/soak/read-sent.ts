import { createParser } from "eventsource-parser";
import { toDigest } from "./tally.ts";

export interface EngineAccess {
  url: string;
  apiKey: string;
}

/** What an engine has sent of one task. */
export interface Sent {
  digests: string[];
  /** How often a turn of the task has started. */
  starts: number;
}

/** Reads from the engine itself, without the service, all that it has sent of each task. */
export async function readSent({ url, apiKey }: EngineAccess): Promise<Map<string, Sent>> {
  const sent = new Map<string, Sent>();
  const response = await fetch(`${url}/execute/replay?after=0`, { headers: { "x-engine-key": apiKey } });
  if (response.status !== 200) throw new Error(`the replay of an engine answered ${response.status}`);
  const parser = createParser({
    onEvent: ({ event = "", data }) => {
      const parsed = JSON.parse(data) as { task_id: string; phase?: string };
      const task = sent.get(parsed.task_id) ?? { digests: [], starts: 0 };
      sent.set(parsed.task_id, task);
      task.digests.push(toDigest(event, parsed));
      if (event === "thread_lifecycle" && parsed.phase === "started") task.starts += 1;
    },
  });
  for await (const text of response.body?.pipeThrough(new TextDecoderStream()) ?? []) parser.feed(text);
  return sent;
}

/** Whether the engine numbers the events of a turn. Then a turn can be read on after its owner's death. */
export async function numbersItsEvents({ url, apiKey }: EngineAccess): Promise<boolean> {
  const response = await fetch(`${url}/execute`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-engine-key": apiKey },
    body: JSON.stringify({ message: "hi", task_id: "of the soak itself" }),
  });
  return /^id: \d+$/m.test(await response.text());
}
