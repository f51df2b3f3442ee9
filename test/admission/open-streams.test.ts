import { expect, test } from "vitest";
import { OpenStreams, type StreamLimits } from "../../server/admission/open-streams.ts";

const NO_LIMIT: StreamLimits = { perProduct: 1_000, perKey: undefined };

function openStreams() {
  let now = 0;
  const streams = new OpenStreams({ now: () => now });
  const wait = (ms: number) => (now += ms);
  const ended: string[] = [];
  const open = (
    [productId, keyId, turnId]: readonly [string, string, string],
    limits: Partial<StreamLimits> = {},
    name = turnId,
  ) =>
    streams.open({
      productId,
      keyId,
      turnId,
      limits: { ...NO_LIMIT, ...limits },
      end: () => ended.push(name),
    });
  return { streams, ended, open, wait };
}

test("below a limit and at it streams are opened, and one above it is refused", () => {
  const { streams, open } = openStreams();
  const limits = { perProduct: 2 };
  open(["p", "k1", "one"], limits);
  open(["p", "k2", "two"], limits);
  expect(() => open(["p", "k3", "three"], limits)).toThrow(/the product may have 2 streams open at once/);
  expect(streams.countOf("p")).toBe(2);
});

test("the streams of a key and of a product are limited apart", () => {
  const { open } = openStreams();
  open(["p", "k1", "one"], { perKey: 1 });
  expect(() => open(["p", "k1", "two"], { perKey: 1 })).toThrow(/this key may have 1 streams open at once/);
  open(["p", "k2", "two"], { perKey: 1 });
  open(["q", "k3", "two"], { perProduct: 1 });
});

test("a stream that is closed makes room, once", () => {
  const { streams, open } = openStreams();
  const first = open(["p", "k", "one"], { perProduct: 1 });
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  open(["p", "k", "two"], { perProduct: 1 });
  expect([streams.countOf("p"), streams.countOf("k")]).toEqual([1, 1]);
});

test("nothing is kept of products and keys without streams", () => {
  const { streams, open } = openStreams();
  open(["p", "k", "one"])[Symbol.dispose]();
  expect([streams.countOf("p"), streams.countOf("k")]).toEqual([0, 0]);
});

test("at the limit, a stream takes the place of the oldest one of the same turn and key", () => {
  const { streams, ended, open, wait } = openStreams();
  const limits = { perProduct: 3 };
  const first = open(["p", "k", "turn"], limits, "first");
  open(["p", "k", "turn"], limits, "second");
  open(["p", "k", "other"], limits, "other");
  wait(2_000);
  open(["p", "k", "TURN"], limits, "third");
  expect(ended).toEqual(["first"]);
  expect(streams.countOf("p")).toBe(3);
  // The stream that lost its place ends later, and frees no second place.
  first[Symbol.dispose]();
  expect(streams.countOf("p")).toBe(3);
  open(["p", "k", "turn"], limits, "fourth");
  expect(ended).toEqual(["first", "second"]);
});

test("a new stream keeps its place for two seconds, so that readers do not drive each other out all the time", () => {
  const { ended, open, wait } = openStreams();
  open(["p", "k", "turn"], { perProduct: 1 }, "first");
  wait(1_999);
  expect(() => open(["p", "k", "turn"], { perProduct: 1 })).toThrow(/may have 1 streams/);
  wait(1);
  open(["p", "k", "turn"], { perProduct: 1 }, "second");
  expect(ended).toEqual(["first"]);
  expect(() => open(["p", "k", "turn"], { perProduct: 1 })).toThrow(/may have 1 streams/);
});

test("below the limit no stream takes another one's place", () => {
  const { ended, open, wait } = openStreams();
  open(["p", "k", "turn"], { perProduct: 2 });
  wait(5_000);
  open(["p", "k", "turn"], { perProduct: 2 });
  expect(ended).toEqual([]);
});

test("no stream takes the place of another key's, another product's or another turn's", () => {
  const { ended, open, wait } = openStreams();
  open(["p", "k1", "turn"]);
  wait(5_000);
  expect(() => open(["p", "k2", "turn"], { perProduct: 1 })).toThrow();
  expect(() => open(["p", "k1", "other"], { perProduct: 1 })).toThrow();
  // An operator's key may read the turns of several products.
  open(["q", "k1", "turn"]);
  wait(5_000);
  expect(() => open(["q", "k1", "new"], { perKey: 2 })).toThrow();
  expect(ended).toEqual([]);
});
