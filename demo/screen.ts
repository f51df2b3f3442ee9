const WIDTH = 92;
const INDENT = "     ";

interface ScreenOptions {
  out: Pick<NodeJS.WriteStream, "write">;
  colour: boolean;
}

/** What the demo tells. Plain lines, so that it reads the same on a terminal and in a file. */
export class Screen {
  readonly #options: ScreenOptions;
  #steps = 0;
  #column = 0;
  /** Waits for the next word: lines do not end in blanks. */
  #blank = "";
  #isMuted = false;

  constructor(options: ScreenOptions) {
    this.#options = options;
  }

  /** One numbered step of the story, with the time that it took. */
  async step<Result>(title: string, work: () => Promise<Result>): Promise<Result> {
    this.#steps += 1;
    this.#write(`\n${this.#paint("1", `${String(this.#steps).padStart(3)}. ${title}`)}\n`);
    const startedAt = performance.now();
    const result = await work();
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(2);
    this.say(this.#paint("2", `${seconds} s`));
    return result;
  }

  /** A line of its own. */
  say(line: string): void {
    if (this.#column > 0) this.#write("\n");
    this.#blank = "";
    this.#write(`${INDENT}${line}\n`);
  }

  /** Goes on in the same line, which is broken between words. */
  flow(text: string): void {
    const word = text.trimEnd();
    const isBroken = this.#column + this.#blank.length + word.length > WIDTH;
    if (isBroken && this.#column > 0) this.#write("\n");
    this.#write(this.#column === 0 ? `${INDENT}${word}` : `${this.#blank}${word}`);
    this.#blank = text.slice(word.length);
  }

  /** Something that went on between two words. */
  mark(text: string): void {
    this.flow(`${this.#paint("33", `[${text}]`)} `);
  }

  /** Whatever is still under way is not told any more. */
  mute(): void {
    this.#isMuted = true;
  }

  /** Also when muted. */
  announce(line: string): void {
    const isMuted = this.#isMuted;
    this.#isMuted = false;
    this.say(line);
    this.#isMuted = isMuted;
  }

  #paint(code: string, text: string): string {
    return this.#options.colour ? `\u001B[${code}m${text}\u001B[0m` : text;
  }

  #write(text: string): void {
    if (this.#isMuted) return;
    this.#options.out.write(text);
    const line = text.lastIndexOf("\n");
    this.#column = line === -1 ? this.#column + text.length : text.length - line - 1;
  }
}
