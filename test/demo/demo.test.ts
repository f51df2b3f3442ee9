import { expect, test } from "vitest";
import { runDemo } from "./run-demo.ts";

/* The quick proof. `demo.long.test.ts` also plays the story in Docker and interrupts it at many points. */

test(
  "the demo plays its story on processes to the end and leaves nothing behind",
  { timeout: 120_000 },
  async () => {
    const run = await runDemo({ backend: "process" });
    // Indented, because vitest takes a line that begins with "at" for one of a stack.
    const transcript = run.lines.map((line) => `| ${line}`).join("\n");
    expect(run, transcript).toMatchObject({ code: 0, leftovers: [] });
    expect(transcript).toContain("engines.destroy");
  },
);
