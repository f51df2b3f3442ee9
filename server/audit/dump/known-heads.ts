import { z } from "zod";

const KnownHead = z.object({
  scope: z.string(),
  seq: z.int().min(0),
  hash: z.string().regex(/^[0-9a-f]{64}$/),
  at: z.string().optional(),
  mac: z.string().nullish(),
});
/** The answer as `curl` prints it. */
const Reply = z.object({ result: z.object({ data: KnownHead }) }).transform(({ result }) => result.data);
const Kept = z.union([KnownHead, Reply]);

/** Reads heads that were kept in a file: one, a list, or one on each line. Throws if the text is something else. */
export function readKnownHeads(text: string): z.infer<typeof KnownHead>[] {
  const given = parseAll(text).flat();
  return given.map((one, index) => {
    const parsed = Kept.safeParse(one);
    if (parsed.success) return parsed.data;
    throw new Error(
      `entry ${index + 1} of the file of heads is no answer of audit.head: it needs scope, seq and hash`,
    );
  });
}

function parseAll(text: string): unknown[] {
  try {
    return [JSON.parse(text)];
  } catch {
    // Not one JSON value, so one on each line.
  }
  const lines = text.split("\n").filter((line) => line.trim() !== "");
  try {
    return lines.map((line) => JSON.parse(line) as unknown);
  } catch (error) {
    throw new Error("the file of heads is not JSON", { cause: error });
  }
}
