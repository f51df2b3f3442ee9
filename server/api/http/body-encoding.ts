import type { IncomingHttpHeaders } from "node:http";
import { TRPCError } from "@trpc/server";

/** ASCII is a part of UTF-8. */
const CHARSETS: ReadonlySet<string> = new Set(["utf-8", "utf8", "us-ascii"]);

/** Says why a body with these headers cannot be read, with HTTP status 415. undefined: it is plain UTF-8. */
export function findEncodingRefusal(headers: IncomingHttpHeaders): TRPCError | undefined {
  const encoding = headers["content-encoding"] ?? "";
  if (encoding !== "" && encoding.toLowerCase() !== "identity") {
    return refuse("Content-Encoding", "send the body as it is, without this header");
  }
  const charset = /;\s*charset\s*=\s*"?([^\s";]*)/i.exec(headers["content-type"] ?? "")?.[1];
  if (charset === undefined || CHARSETS.has(charset.toLowerCase())) return undefined;
  return refuse("Content-Type", "its charset must be utf-8, or absent");
}

function refuse(header: string, advice: string): TRPCError {
  const message = `the header ${header} is not supported: ${advice}`;
  return new TRPCError({ code: "UNSUPPORTED_MEDIA_TYPE", message });
}
