import { expect, test } from "vitest";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import { MAX_REMEMBERED, openKey } from "../../server/keys/opened-keys.ts";

function openCountingRing() {
  const ring = openKeyring(generateMasterKeys());
  const opened: string[] = [];
  const open = (sealed: string, place: string) => {
    opened.push(place);
    return ring.open(sealed, place);
  };
  return { ring: { ...ring, open }, opened };
}

test("a key is opened once, at its own place only", () => {
  const { ring, opened } = openCountingRing();
  const sealed = ring.seal("secret", "engine 1");
  expect([openKey(ring, sealed, "engine 1"), openKey(ring, sealed, "engine 1")]).toEqual([
    "secret",
    "secret",
  ]);
  expect(opened).toEqual(["engine 1"]);
  expect(() => openKey(ring, sealed, "engine 2")).toThrow("not from this place");
});

test("a key that was rotated is another one", () => {
  const { ring } = openCountingRing();
  const [before, after] = [ring.seal("before", "engine"), ring.seal("after", "engine")];
  expect(openKey(ring, before, "engine")).toBe("before");
  expect(openKey(ring, after, "engine")).toBe("after");
});

test("no more keys are kept than a thousand, those used last", () => {
  const { ring, opened } = openCountingRing();
  const use = (index: number) => openKey(ring, sealed[index] ?? "", `${index}`);
  const sealed = Array.from({ length: MAX_REMEMBERED + 1 }, (_, index) => ring.seal("secret", `${index}`));
  for (let index = 0; index < MAX_REMEMBERED; index += 1) use(index);
  use(0);
  use(MAX_REMEMBERED);
  opened.length = 0;
  use(0);
  use(1);
  expect(opened).toEqual(["1"]);
});
