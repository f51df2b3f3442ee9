import { lockDataDir } from "../../../../db/data-dir-lock.ts";
import { openEmbeddedPostgres } from "../../../../db/embedded/embedded-postgres.ts";

// What a start does with its data directory: says "serving <json>" or "refused <reason>", and stays until told.
const dataDir = process.argv[2] ?? "";
const mode = process.argv[3];
process.stdin.resume();
try {
  if (mode !== "without-lock") await lockDataDir(dataDir);
  const postgres = mode === "lock-only" ? undefined : await openEmbeddedPostgres({ dataDir, durable: false });
  const { url, pid, adopted } = postgres ?? {};
  console.log("serving", JSON.stringify({ url, pid, adopted }));
  process.stdin.once("end", () => void (postgres?.close() ?? Promise.resolve()).then(() => process.exit(0)));
} catch (error) {
  console.log("refused", error instanceof Error ? error.message : String(error));
  process.exit(1);
}
