/** One side of a comparison. Each call measures one round. */
export type Side<Result> = () => Promise<Result>;

/**
 * Runs each side once per round and rotates their order, so that other load on the machine affects all sides equally.
 * Returns the results of each side, by round.
 */
export async function alternate<Sides extends Record<string, Side<unknown>>>(
  sides: Sides,
  rounds: number,
): Promise<{ [Name in keyof Sides]: Awaited<ReturnType<Sides[Name]>>[] }> {
  const names = Object.keys(sides);
  const results: Record<string, unknown[]> = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (let offset = 0; offset < names.length; offset += 1) {
      const name = names[(round + offset) % names.length] ?? "";
      results[name]?.push(await sides[name]?.());
    }
  }
  return results as { [Name in keyof Sides]: Awaited<ReturnType<Sides[Name]>>[] };
}
