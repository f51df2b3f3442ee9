import { randomUUID } from "node:crypto";

/**
 * JSON text that goes into a reply as it is. tRPC writes replies with JSON.stringify, which takes no text. So a reply
 * gets a stand-in for each text, and the text replaces the stand-in in the written reply.
 */
export class StandIns {
  readonly #texts = new Map<string, string>();

  /** The stand-in for this text. Use it once. */
  add(json: string): string {
    // Random, because the text of others, which no stand-in may match, is in the same reply.
    const standIn = randomUUID();
    // A raw line break is white space in JSON, but ends the line in a reply that is sent line by line.
    this.#texts.set(JSON.stringify(standIn), json.replaceAll(/[\n\r]/g, " "));
    return standIn;
  }

  /** Puts the texts into a written reply, or into a part of it that cuts no stand-in. */
  fill(reply: string): string {
    let filled = reply;
    // A function, because `$` has a meaning in a replacement.
    for (const [standIn, json] of this.#texts) filled = filled.replace(standIn, () => json);
    return filled;
  }

  /** Does the same to a reply that is sent line by line. */
  fillLines(): TransformStream<Uint8Array, string> {
    const decoder = new TextDecoder();
    let rest = "";
    return new TransformStream({
      transform: (chunk, controller) => {
        const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) controller.enqueue(`${this.fill(line)}\n`);
      },
      flush: (controller) => controller.enqueue(this.fill(rest)),
    });
  }
}
