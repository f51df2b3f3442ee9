import { openLog } from "../../server/log.ts";

/** Logs a hundred lines. Then ends in the way that its argument names. */
const log = openLog({ level: "info", pretty: false });
for (let n = 0; n < 100; n += 1) log.info({ n }, `line ${n}`);

const ends: Record<string, () => unknown> = {
  "nothing left to do": () => undefined,
  "process.exit": () => process.exit(3),
  "an uncaught exception": () => {
    throw new Error("uncaught");
  },
  "an unhandled rejection": () => void Promise.reject(new Error("unhandled")),
  "a kill after a warning": () => {
    log.warn({}, "the last one");
    process.kill(process.pid, "SIGKILL");
  },
  "keep running": () => setInterval(() => undefined, 60_000),
};
ends[process.argv[2] ?? ""]?.();
