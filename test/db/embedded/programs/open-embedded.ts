import { lockDataDir } from "../../../../db/data-dir-lock.ts";
import { openEmbeddedPostgres } from "../../../../db/embedded/embedded-postgres.ts";

// Opens a data directory as a start of the service does. Prints "serving <json>" or "refused <reason>". Exits when its
// standard input ends.
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
