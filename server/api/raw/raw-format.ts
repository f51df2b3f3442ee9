import type { StreamFormat } from "../sse/event-stream.ts";

/** A comment: readers skip it, and proxies see that the connection lives. */
export const QUIET_LINE = ":\n\n";

export const RAW_FORMAT: StreamFormat = {
  greeting: "",
  ping: QUIET_LINE,
};
