import { once } from "node:events";

/** The resources of a process after a garbage collection. */
export interface Footprint {
  heapBytes: number;
  /** Handles and requests that keep the process alive: sockets, timers and others. */
  resources: number;
  /** File descriptors, as the kernel counts them. */
  descriptors: number;
}

export interface Inspector extends Disposable {
  measure(): Promise<Footprint>;
}

const MEASURE = `({
  heapBytes: process.memoryUsage().heapUsed,
  resources: process.getActiveResourcesInfo().length,
  descriptors: process.getBuiltinModule("node:fs").readdirSync("/proc/self/fd").length,
})`;

interface Answer {
  id?: number;
  result?: { result?: { value?: Footprint } };
}

/** Connects to a process that was started with `--inspect`, by the url that the process wrote to stderr. */
export async function openInspector(output: string): Promise<Inspector> {
  const url = /Debugger listening on (ws:\S+)/.exec(output)?.[1];
  if (url === undefined) throw new Error(`the output has no inspector url: ${output.slice(0, 500)}`);
  const socket = new WebSocket(url);
  await once(socket, "open");
  const waiting = new Map<number, (answer: Answer) => void>();
  socket.addEventListener("message", ({ data }) => {
    const answer = JSON.parse(String(data)) as Answer;
    waiting.get(answer.id ?? 0)?.(answer);
    waiting.delete(answer.id ?? 0);
  });
  let lastId = 0;
  const send = async (method: string, params: object = {}) => {
    const id = (lastId += 1);
    const { promise, resolve } = Promise.withResolvers<Answer>();
    waiting.set(id, resolve);
    socket.send(JSON.stringify({ id, method, params }));
    return promise;
  };
  return {
    measure: async () => {
      // Collect twice: the second collection frees what finalizers of the first released.
      await send("HeapProfiler.collectGarbage");
      await send("HeapProfiler.collectGarbage");
      const answer = await send("Runtime.evaluate", { expression: MEASURE, returnByValue: true });
      const value = answer.result?.result?.value;
      if (value === undefined) throw new Error(`the inspector answered ${JSON.stringify(answer)}`);
      return value;
    },
    [Symbol.dispose]: () => socket.close(),
  };
}
