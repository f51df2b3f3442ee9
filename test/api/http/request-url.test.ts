import { expect, test } from "vitest";
import { toPath } from "../../../server/api/http/request-url.ts";
import { createKey } from "../../../server/keys/key-format.ts";

const KEY = createKey("platform").plaintext;

test.each([
  ["as it is", KEY],
  ["with a percent encoding", KEY.replace("_", "%5F")],
  ["encoded whole", KEY.replaceAll(/./g, (sign) => `%${sign.charCodeAt(0).toString(16)}`)],
  ["in base64", Buffer.from(KEY).toString("base64url")],
  ["of another service", "sk-proj-0123456789abcdefghij"],
])("a key in a path is hidden, %s", (_how, key) => {
  expect(toPath(`/v1/x.${key}?key=${key}`)).toMatch(/^\/v1\/(x\.)?\[hidden\]$/);
  expect(toPath(`/${"a".repeat(190)}.${key}`)).not.toContain(key.slice(0, 6));
});

test("the paths of this service stay", () => {
  for (const path of [
    "/healthz",
    "/trpc/engines.get",
    "/trpc/engines.provision,platformKeys.issue,turns.execute",
  ]) {
    expect(toPath(`${path}?input=1`)).toBe(path);
  }
});
