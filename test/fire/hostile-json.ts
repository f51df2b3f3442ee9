import * as fc from "fast-check";

/** A placeholder in a value, for JSON text that `JSON.stringify` never writes. */
const RAW = /"raw text number (\d+)"/g;
const nested = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;
const RAW_TEXTS = [
  "1e400",
  "-1e400",
  "-0",
  "1e-400",
  "123456789012345678901234567890",
  nested(65),
  nested(20_000),
  `${'{"a":'.repeat(2_000)}1${"}".repeat(2_000)}`,
  '{"__proto__":{"polluted":true}}',
  '{"constructor":{"prototype":{"polluted":true}}}',
  '{"a":1,"a":[]}',
  String.raw`"\ud800"`,
  String.raw`"\udfff\ud800"`,
  String.raw`"\u0000"`,
];
const raw = fc.nat(RAW_TEXTS.length - 1).map((index) => `raw text number ${index}`);

const NAMES = ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "then", "toJSON", ""];

/** Any UTF-16 units, also lone surrogates and NUL. */
const anyUnits = fc
  .array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 200 })
  .map((units) => String.fromCharCode(...units));
const hostileText = fc.oneof(
  fc.constantFrom(
    ...NAMES,
    " ",
    ".",
    "..",
    "../../etc/passwd",
    "' or 1=1 --",
    "%00",
    "%zz",
    "a\u0000b",
    "null",
  ),
  fc.constantFrom("\r\nx-injected: 1", "\u202e\ufeff", "\ud800", "a\udc00", "0", "-1", "NaN", "true"),
  fc.constantFrom("x".repeat(129), "🦊".repeat(200), "x".repeat(20_000), "\u0000".repeat(5_000)),
  anyUnits,
);
const hostileNumber = fc.oneof(
  fc.constantFrom(0, -1, 1.5, 2 ** 31, 2 ** 32, 2 ** 53, 2 ** 63, 1e21, 1e308, -1e308, Number.MIN_VALUE),
  fc.integer(),
);
const hostileValue: fc.Arbitrary<unknown> = fc.oneof(
  { weight: 3, arbitrary: hostileText },
  { weight: 2, arbitrary: hostileNumber },
  { weight: 2, arbitrary: raw },
  { weight: 2, arbitrary: fc.constantFrom(null, true, false, [], {}, [[]], [null], { length: 1 }, [0, 1]) },
  { weight: 1, arbitrary: fc.array(hostileText, { maxLength: 5 }) },
  { weight: 1, arbitrary: fc.jsonValue() },
);

export type Damage =
  | { do: "replace"; at: number; value: unknown }
  | { do: "remove"; at: number }
  | { do: "wrap"; at: number }
  | { do: "add"; at: number; name: string; value: unknown }
  | { do: "whole"; value: unknown }
  | { do: "cut" | "spoil"; at: number };

const place = fc.nat(1_000);
const damage: fc.Arbitrary<Damage> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ do: fc.constant("replace" as const), at: place, value: hostileValue }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("remove" as const, "wrap" as const), at: place }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("add" as const),
      at: place,
      name: fc.oneof(fc.constantFrom(...NAMES), hostileText),
      value: hostileValue,
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("whole" as const), value: hostileValue }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom("cut" as const, "spoil" as const), at: place }) },
);
/** Mostly one damage, so that inputs also pass the first checks. */
export const damages = fc.oneof(
  { weight: 4, arbitrary: fc.array(damage, { minLength: 1, maxLength: 1 }) },
  { weight: 1, arbitrary: fc.array(damage, { maxLength: 4 }) },
);

/** The JSON text of a valid input after these damages. */
export function damageInput(good: object, done: readonly Damage[]): string {
  let root: unknown = structuredClone(good);
  // Generated values are shared between cases, so clone them: a damaged input must not change the next one.
  for (const one of done) root = apply(root, structuredClone(one));
  // A value without a JSON text is sent as an empty body.
  let text = (JSON.stringify(root) ?? "").replaceAll(
    RAW,
    (_all, index: string) => RAW_TEXTS[Number(index)] ?? "",
  );
  for (const one of done) {
    if (one.do === "cut") text = text.slice(0, one.at % (text.length + 1));
    if (one.do === "spoil") text = spoil(text, one.at % (text.length + 1));
  }
  return text;
}

function spoil(text: string, at: number): string {
  const junk = ["\u0000", ",", "}", "//", "\ufeff", "'", "NaN", "\\"][at % 8] ?? "";
  return text.slice(0, at) + junk + text.slice(at);
}

type Holder = Record<string, unknown>;

function apply(root: unknown, damage: Damage): unknown {
  switch (damage.do) {
    case "whole":
      return damage.value;
    case "cut":
    case "spoil":
      return root;
    case "add": {
      const holders = [root, ...listPlaces(root).map(({ holder, name }) => holder[name])].filter(isHolder);
      const holder = holders[damage.at % Math.max(1, holders.length)];
      if (holder) define(holder, damage.name, damage.value);
      return root;
    }
    case "replace":
    case "remove":
    case "wrap": {
      const places = listPlaces(root);
      const place = places[damage.at % Math.max(1, places.length)];
      if (place === undefined) return root;
      const { holder, name } = place;
      if (damage.do === "remove") Reflect.deleteProperty(holder, name);
      else define(holder, name, damage.do === "wrap" ? [holder[name]] : damage.value);
      return root;
    }
  }
}

/** Each field at any depth, with the object that holds it. */
function listPlaces(value: unknown): { holder: Holder; name: string }[] {
  if (!isHolder(value)) return [];
  return Object.keys(value).flatMap((name) => [{ holder: value, name }, ...listPlaces(value[name])]);
}

function isHolder(value: unknown): value is Holder {
  return typeof value === "object" && value !== null;
}

/** Assigning to `__proto__` would change the prototype instead. */
function define(holder: Holder, name: string, value: unknown): void {
  Object.defineProperty(holder, name, { value, enumerable: true, writable: true, configurable: true });
}
