/** Instants as ISO text. Events of one millisecond share the text, whatever turn they belong to. */
export class IsoTime {
  #ms = -1;
  #text = "";

  toText(ms: number): string {
    if (ms !== this.#ms) {
      this.#ms = ms;
      this.#text = new Date(ms).toISOString();
    }
    return this.#text;
  }
}
