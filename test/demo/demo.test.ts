import { expect, test } from "vitest";
import { runDemo } from "./run-demo.ts";

/* The quick test. `demo.long.test.ts` also plays the story in Docker and interrupts it at many points. */

test(
  "the demo plays its story with processes to the end and leaves nothing behind",
  { timeout: 120_000 },
  async () => {
    const run = await runDemo({ runtime: "process" });
    // The prefix keeps vitest from reading a line with "at" as a stack frame.
    const transcript = run.lines.map((line) => `| ${line}`).join("\n");
    expect(run, transcript).toMatchObject({ code: 0, leftovers: [] });
    expect(transcript).toContain("engines.destroy");
  },
);
