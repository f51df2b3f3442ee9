const WIDTH = 92;
const INDENT = "     ";

interface ScreenOptions {
  out: Pick<NodeJS.WriteStream, "write">;
  colour: boolean;
}

/** Prints the demo's output as plain lines, so that a terminal and a file show the same. */
export class Screen {
  readonly #options: ScreenOptions;
  #steps = 0;
  #column = 0;
  /** White space before the next word. It is held back so that no line ends with it. */
  #blank = "";
  #isMuted = false;

  constructor(options: ScreenOptions) {
    this.#options = options;
  }

  /** Prints a numbered step of the story and the time that it took. */
  async step<Result>(title: string, work: () => Promise<Result>): Promise<Result> {
    this.#steps += 1;
    this.#write(`\n${this.#paint("1", `${String(this.#steps).padStart(3)}. ${title}`)}\n`);
    const startedAt = performance.now();
    const result = await work();
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(2);
    this.print(this.#paint("2", `${seconds} s`));
    return result;
  }

  /** Prints a line. */
  print(line: string): void {
    if (this.#column > 0) this.#write("\n");
    this.#blank = "";
    this.#write(`${INDENT}${line}\n`);
  }

  /** Appends a word to the current line, and breaks the line where it is too long. */
  flow(text: string): void {
    const word = text.trimEnd();
    const isBroken = this.#column + this.#blank.length + word.length > WIDTH;
    if (isBroken && this.#column > 0) this.#write("\n");
    this.#write(this.#column === 0 ? `${INDENT}${word}` : `${this.#blank}${word}`);
    this.#blank = text.slice(word.length);
  }

  /** Prints a remark between two words. */
  mark(text: string): void {
    this.flow(`${this.#paint("33", `[${text}]`)} `);
  }

  /** Prints nothing more of the steps that still run. */
  mute(): void {
    this.#isMuted = true;
  }

  /** Prints a line even when the screen is muted. */
  announce(line: string): void {
    const isMuted = this.#isMuted;
    this.#isMuted = false;
    this.print(line);
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
