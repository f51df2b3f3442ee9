import { Pool } from "undici";
import { measureRate } from "./measure-rate.ts";

export interface RepeatedCall {
  apiKey: string;
  path: string;
  /** Of a mutation. undefined: the call is a query. */
  input?: object;
  workers: number;
  durationMs: number;
  signal: AbortSignal;
  /** The status of every answer, 200 by default. */
  status?: number;
}

/** Repeats one call on `workers` connections for `durationMs`, and counts the answers. */
export async function repeatCall(url: string, call: RepeatedCall) {
  const { path, signal, workers, durationMs, status = 200 } = call;
  const pool = new Pool(url, { connections: workers });
  const authorization = `Bearer ${call.apiKey}`;
  const request =
    call.input === undefined
      ? { method: "GET" as const, path, headers: { authorization }, signal }
      : {
          method: "POST" as const,
          path,
          headers: { authorization, "content-type": "application/json" },
          body: JSON.stringify(call.input),
          signal,
        };
  try {
    return await measureRate({
      workers,
      durationMs,
      work: async () => {
        const { statusCode, body } = await pool.request(request);
        const text = await body.text();
        if (statusCode !== status) throw new Error(`${path} answered ${statusCode}: ${text}`);
      },
    });
  } finally {
    await pool.close();
  }
}
