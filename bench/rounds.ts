/** One side of a comparison: what it takes in one round. */
export type Side<Result> = () => Promise<Result>;

/**
 * Runs each side once per round, in an order that turns: whatever else the machine does falls on all of them alike.
 * Answers each side's results by round.
 */
export async function alternate<Sides extends Record<string, Side<unknown>>>(
  sides: Sides,
  rounds: number,
): Promise<{ [Name in keyof Sides]: Awaited<ReturnType<Sides[Name]>>[] }> {
  const names = Object.keys(sides);
  const results: Record<string, unknown[]> = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (let turn = 0; turn < names.length; turn += 1) {
      const name = names[(round + turn) % names.length] ?? "";
      results[name]?.push(await sides[name]?.());
    }
  }
  return results as { [Name in keyof Sides]: Awaited<ReturnType<Sides[Name]>>[] };
}
