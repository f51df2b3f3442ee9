import type { z } from "zod";

/** Marks a schema that checks only a part, or in another way: the API document shows the other schema instead. */
export function shownAs(schema: z.ZodType): { shownAs: () => z.ZodType } {
  // A function, because zod compares the values of marks as JSON.
  return { shownAs: () => schema };
}
