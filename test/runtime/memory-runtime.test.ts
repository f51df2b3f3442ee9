import { MemoryDaemon } from "../support/memory-daemon.ts";
import { openMemoryRuntime } from "../support/memory-runtime.ts";
import { makeSpec } from "../support/runtime-spec.ts";
import { describeRuntimeContract } from "./runtime-contract.ts";

describeRuntimeContract("memory", async () => {
  const daemon = new MemoryDaemon({ images: new Set(["fixture"]) });
  return {
    open: async (instanceId, marked = false) => openMemoryRuntime({ instanceId, marked, daemon }),
    openUnreachable: async () => {
      const runtime = openMemoryRuntime();
      runtime.unreachable(true);
      return runtime;
    },
    loseMarker: async (instanceId) => void daemon.markers.delete(instanceId),
    makeSpec,
    image: "fixture",
    missingImage: "nowhere:1",
    isReal: false,
    close: () => daemon[Symbol.asyncDispose](),
  };
});
