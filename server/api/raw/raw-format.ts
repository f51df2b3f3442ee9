import type { StreamFormat } from "../sse/event-stream.ts";

/** A comment: readers skip it, and proxies see that the connection lives. */
export const QUIET_LINE = ":\n\n";

/** `no-transform` keeps proxies from compressing the stream, `x-accel-buffering` keeps nginx from collecting it. */
export const RAW_FORMAT: StreamFormat = {
  headers: {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
  },
  greeting: "",
  ping: QUIET_LINE,
};
