import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import type { CallableEngine } from "../../db/engines.ts";
import { sealEngineKey, toEndpointMac } from "../../server/keys/engine-key.ts";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import { MAX_REMEMBERED, OpenedKeys } from "../../server/keys/opened-keys.ts";

function openCountingRing() {
  const ring = openKeyring(generateMasterKeys());
  const opened: string[] = [];
  const reported: string[] = [];
  const open = (sealed: string, associatedData: string) => {
    opened.push(associatedData);
    return ring.open(sealed, associatedData);
  };
  const keys = new OpenedKeys({ ...ring, open }, { report: ({ id }) => reported.push(id) });
  const add = (key: string, identity: Partial<CallableEngine> = {}): CallableEngine => {
    const who = { id: randomUUID(), productId: randomUUID(), userId: "ada", ...identity };
    const endpoint = "http://127.0.0.1:9001";
    const endpointMac = toEndpointMac(ring, who.id, endpoint);
    return { ...who, keySealed: sealEngineKey(ring, who, key), endpoint, endpointMac };
  };
  return { keys, opened, reported, add };
}

test("a key is decrypted once, and only for its own engine, user and product", () => {
  const { keys, opened, reported, add } = openCountingRing();
  const engine = add("secret");
  expect([keys.open(engine), keys.open({ ...engine })]).toEqual(["secret", "secret"]);
  expect(opened).toHaveLength(1);
  const other = add("other");
  for (const moved of [
    { ...other, keySealed: engine.keySealed },
    { ...engine, productId: randomUUID() },
    { ...engine, userId: "grace" },
  ]) {
    expect(() => keys.open(moved)).toThrow("was changed outside of the service");
  }
  expect(reported).toEqual([other.id, engine.id, engine.id]);
});

test("no key is given for an address that is not the engine's own", () => {
  const { keys, reported, add } = openCountingRing();
  const [engine, other] = [add("secret"), add("other")];
  keys.open(engine);
  for (const moved of [
    { ...engine, endpoint: "http://attacker.example" },
    { ...engine, endpointMac: null },
    { ...engine, endpointMac: other.endpointMac },
  ]) {
    expect(() => keys.open(moved)).toThrow("was changed outside of the service");
  }
  expect(reported).toHaveLength(3);
  expect(keys.open(engine)).toBe("secret");
});

test("after a rotation, the new key is returned", () => {
  const { keys, add } = openCountingRing();
  const before = add("before");
  const after = add("after", before);
  expect(keys.open(before)).toBe("before");
  expect(keys.open(after)).toBe("after");
});

test("the cache keeps the thousand keys that were used last", () => {
  const { keys, opened, add } = openCountingRing();
  const engines = Array.from({ length: MAX_REMEMBERED + 1 }, () => add("secret"));
  const use = (index: number) => {
    const engine = engines[index];
    if (engine !== undefined) keys.open(engine);
  };
  for (let index = 0; index < MAX_REMEMBERED; index += 1) use(index);
  use(0);
  use(MAX_REMEMBERED);
  opened.length = 0;
  use(0);
  use(1);
  expect(opened).toHaveLength(1);
  expect(opened[0]).toContain(engines[1]?.id);
});
