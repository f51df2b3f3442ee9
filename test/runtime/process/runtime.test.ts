import { rm } from "node:fs/promises";
import { join } from "node:path";
import { openProcessRuntime } from "../../../server/runtime/process/runtime.ts";
import { quietLog } from "../../support/runtime-harness.ts";
import { makeSpec } from "../../support/runtime-spec.ts";
import { openTempDir } from "../../support/temp-dir.ts";
import { describeRuntimeContract } from "../runtime-contract.ts";

const FIXTURE = join(import.meta.dirname, "..", "..", "support", "runtime-fixture-engine.ts");

describeRuntimeContract("process", async () => {
  const dataDir = await openTempDir();
  return {
    open: (instanceId, marked = false) =>
      openProcessRuntime({
        instanceId,
        marked,
        dataDir: dataDir.path,
        command: [process.execPath, FIXTURE],
        log: quietLog,
      }),
    openUnreachable: null,
    loseMarker: (instanceId) => rm(join(dataDir.path, "engines", `marker-${instanceId}.json`)),
    makeSpec,
    image: "fixture",
    missingImage: null,
    isReal: true,
    close: () => dataDir.close(),
  };
});
