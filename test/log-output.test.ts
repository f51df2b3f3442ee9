import { expect, test } from "vitest";
import { openLog } from "../server/log.ts";
import { LogOutput } from "../server/log-output.ts";

/** An output that fails on demand, and otherwise takes at most `takes` bytes of each write. */
class FlakyFile {
  text = "";
  error: string | undefined;
  takes = Infinity;

  readonly write = (bytes: Uint8Array): number => {
    if (this.error !== undefined) throw Object.assign(new Error("made to fail"), { code: this.error });
    const taken = bytes.subarray(0, this.takes);
    this.text += Buffer.from(taken).toString();
    return taken.length;
  };

  get lines(): string[] {
    return this.text.split("\n").filter((line) => line !== "");
  }
}

test.each(["ENOSPC", "EDQUOT", "EIO", "EPIPE", "EAGAIN", "EBADF", "EROFS"])(
  "while writing fails with %s, lines are kept up to a bound and then counted; one line tells how many were dropped",
  async (error) => {
    const file = new FlakyFile();
    const output = new LogOutput(file.write);
    const log = openLog({ level: "info", pretty: false }, { output });
    log.warn({}, "before");
    file.error = error;
    const pad = "x".repeat(10_000);
    for (let n = 0; n < 500; n += 1) log.warn({ pad }, `line ${n}`);
    expect(output.error).toBe(error);
    const { droppedLines } = output;
    expect(droppedLines).toBeGreaterThan(0);
    log.info({}, "dropped too");
    expect(output.droppedLines).toBe(droppedLines + 1);

    file.error = undefined;
    file.takes = 7_777;
    await expect.poll(() => output.error).toBeUndefined();
    log.warn({}, "after");
    const lines = file.lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines.map(({ msg }) => msg)).toEqual([
      "before",
      ...Array.from({ length: 500 - droppedLines }, (_, n) => `line ${n}`),
      "log lines were dropped",
      "after",
    ]);
    const since: unknown = expect.stringMatching(/^\d{4}-\d\d-\d\dT/);
    expect(lines.at(-2)).toMatchObject({ dropped: droppedLines + 1, since, error });
  },
);

test("a short failure drops nothing", async () => {
  const file = new FlakyFile();
  const output = new LogOutput(file.write);
  file.error = "EAGAIN";
  for (let n = 0; n < 10; n += 1) output.write(`${n}\n`, true);
  file.error = undefined;
  await expect.poll(() => output.error).toBeUndefined();
  expect(file.lines).toEqual(Array.from({ length: 10 }, (_, n) => `${n}`));
  expect(output.droppedLines).toBe(0);
});

test("the end writes what waits, and gives up an output that stays busy", () => {
  const file = new FlakyFile();
  const output = new LogOutput(file.write);
  output.write("waits\n");
  output.end();
  expect(file.lines).toEqual(["waits"]);
  file.error = "EAGAIN";
  output.write("never taken\n", true);
  output.end();
  expect(file.lines).toEqual(["waits"]);
});
