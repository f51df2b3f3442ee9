import { expect, test } from "vitest";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import { MAX_REMEMBERED, OpenedKeys } from "../../server/keys/opened-keys.ts";

function openCountingRing() {
  const ring = openKeyring(generateMasterKeys());
  const opened: string[] = [];
  const open = (sealed: string, associatedData: string) => {
    opened.push(associatedData);
    return ring.open(sealed, associatedData);
  };
  return { ring, keys: new OpenedKeys({ ...ring, open }), opened };
}

test("a key is decrypted once, and only for its own engine", () => {
  const { ring, keys, opened } = openCountingRing();
  const sealed = ring.seal("secret", "engine 1");
  expect([keys.open(sealed, "engine 1"), keys.open(sealed, "engine 1")]).toEqual(["secret", "secret"]);
  expect(opened).toEqual(["engine 1"]);
  expect(() => keys.open(sealed, "engine 2")).toThrow("belongs to another row");
});

test("after a rotation, the new key is returned", () => {
  const { ring, keys } = openCountingRing();
  const [before, after] = [ring.seal("before", "engine"), ring.seal("after", "engine")];
  expect(keys.open(before, "engine")).toBe("before");
  expect(keys.open(after, "engine")).toBe("after");
});

test("the cache keeps the thousand keys that were used last", () => {
  const { ring, keys, opened } = openCountingRing();
  const use = (index: number) => keys.open(sealed[index] ?? "", `${index}`);
  const sealed = Array.from({ length: MAX_REMEMBERED + 1 }, (_, index) => ring.seal("secret", `${index}`));
  for (let index = 0; index < MAX_REMEMBERED; index += 1) use(index);
  use(0);
  use(MAX_REMEMBERED);
  opened.length = 0;
  use(0);
  use(1);
  expect(opened).toEqual(["1"]);
});
