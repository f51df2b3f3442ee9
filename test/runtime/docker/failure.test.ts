import { describe, expect, test } from "vitest";
import { toDockerFailure } from "../../../server/runtime/docker/failure.ts";
import type { RuntimeFailureKind } from "../../../server/runtime/engine-runtime.ts";

/** An error as dockerode makes it. Without a message, the body is not the JSON of a daemon. */
function toError(statusCode: number, message?: string): Error {
  const error = new Error(`(HTTP code ${statusCode}) ${message ?? "<html>"}`);
  return Object.assign(error, { statusCode, json: message === undefined ? null : { message } });
}

const ID = "a".repeat(64);

/** What daemons answer, and what it means. */
const ANSWERS: readonly [number, string | undefined, RuntimeFailureKind][] = [
  [404, `No such container: ${ID}`, "no_such_container"],
  [404, `No such image: sha256:${ID}`, "image_missing"],
  [404, `network ${ID} not found`, "unfit"],
  [404, "network engine_net not found", "unfit"],
  [500, `failed to set up container networking: network ${ID} not found`, "unfit"],
  [403, "endpoint with name engine-1 already exists in network engine_net", "unfit"],
  [409, `Conflict. The container name "/engine-1" is already in use by container "${ID}".`, "conflict"],
  [409, `remove engine-data-1: volume is in use - [${ID}]`, "refused"],
  [400, "invalid mount config for type bind: bind source path does not exist: /catalog", "refused"],
  [500, "mkdir /var/lib/docker/overlay2/x: no space left on device", "refused"],
  [500, "Bind for 127.0.0.1:9001 failed: port is already allocated", "port_taken"],
  [500, "listen tcp4 127.0.0.1:9001: bind: address already in use", "port_taken"],
  [500, "could not find an available, non-overlapping IPv4 address pool", "refused"],
  [500, "dial unix /run/containerd/containerd.sock: connect: connection refused", "unreachable"],
  [503, "could not find an available IPv4 address pool", "refused"],
  [502, undefined, "unreachable"],
  [503, undefined, "unreachable"],
  [504, undefined, "unreachable"],
  [403, undefined, "refused"],
];

describe("a daemon's answer", () => {
  test.each(ANSWERS)("with status %i and the text %j is %s", (status, message, kind) => {
    const failure = toDockerFailure(toError(status, message));
    expect(failure.kind).toBe(kind);
    if (message !== undefined) expect(failure.message).toContain(message);
  });

  test("that never came is unreachable", () => {
    expect(toDockerFailure(new Error("connect ECONNREFUSED")).kind).toBe("unreachable");
  });
});
