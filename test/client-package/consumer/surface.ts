import type * as Package from "@enginehouse/client";

/*
 * Lists every `any` and `unknown` in the package's types. The types below walk over all exports and name each such
 * type by its path. A path that is not listed, or is listed for nothing, does not compile.
 *
 *     x.name a member    x.* any other member    x[] an element   x() a parameter list    x=> a result    x<> a stream
 */

type Loose = "any" | "unknown";
type KindOf<T> = 0 extends 1 & T ? "any" : unknown extends T ? "unknown" : "typed";

type Primitive = string | number | boolean | symbol | null | undefined | void;
/** Types of the platform, which the walk leaves out. */
type Foreign = AbortSignal | Response | Uint8Array | typeof globalThis.fetch;

type LooseIn<T, Kind extends Loose, Path extends string> =
  KindOf<T> extends Kind
    ? Path
    : KindOf<T> extends Loose
      ? never
      : T extends Primitive | Foreign
        ? never
        : T extends Promise<infer Value>
          ? LooseIn<Value, Kind, Path>
          : T extends readonly (infer Item)[]
            ? LooseIn<Item, Kind, `${Path}[]`>
            : T extends abstract new (...args: infer Args) => infer Instance
              ? LooseIn<Args, Kind, `${Path}()`> | LooseIn<Instance, Kind, `${Path}=>`>
              : LooseInFunction<T, Kind, Path> | LooseInObject<T, Kind, Path>;

/** Covers functions with two overloads. A function with one matches twice. */
type LooseInFunction<T, Kind extends Loose, Path extends string> = T extends {
  (...args: infer First): infer One;
  (...args: infer Second): infer Other;
}
  ? LooseIn<First | Second, Kind, `${Path}()`> | LooseIn<One | Other, Kind, `${Path}=>`>
  : never;

type LooseInObject<T, Kind extends Loose, Path extends string> =
  | { [Name in NamesOf<T>]: LooseIn<T[Name & keyof T], Kind, `${Path}.${Name}`> }[NamesOf<T>]
  | (string extends keyof T ? LooseIn<T[string & keyof T], Kind, `${Path}.*`> : never)
  | (T extends AsyncIterable<infer Item, infer End, infer Sent>
      ? LooseIn<Item | End | Sent, Kind, `${Path}<>`>
      : never);

/** Leaves out the `cause` of an error: it is always unknown, and would make the walk endless. */
type NamesOf<T> = Exclude<KnownNames<T>, T extends Error ? "cause" : never>;
type KnownNames<T> = keyof {
  [Name in keyof T as Name extends string ? (string extends Name ? never : Name) : never]: true;
} &
  string;

type Found<Kind extends Loose> =
  LooseIn<typeof Package, Kind, "package"> | LooseIn<Package.EventData, Kind, "event">;

type Api = "package.createClient=>.api";

/** tRPC's iterator types what it yields. What it returns and is sent has TypeScript's default, `any`. */
type ListedAny =
  | `${Api}.turns.${"events" | "execute"}.subscribe=>.${"next" | "return" | "throw"}${"()[]" | "=>.value"}`
  | `${Api}.turns.${"events" | "execute"}.subscribe=><>`;

/** Where a turn is. */
type Turns =
  `package.${"createClient=>.execute=>" | "createClient=>.follow=>" | "toEventStream()[]" | "pipeEventStream()[]"}`;

/** The engine's own details of a failure. */
type EngineErrors =
  | "event.error.details"
  | `${Turns}<>.data.details`
  | `${Turns}${"" | ".cancel=>"}.end.engineError.details`
  | `package.EnginehouseError${"()[]" | "=>"}${"" | ".end"}.engineError.details`
  | `${Api}.turns.cancel.mutate=>.end.engineError.details`
  | `${Api}.turns.get.query=>.end.engineError.details`
  | `${Api}.turns.list.query=>.items[].end.engineError.details`;

type EventPayloads =
  | `event.${"hitl_resolved" | "working_memory_update" | "compaction_event" | "usage" | "heartbeat"}`
  | `event.${"tool_call.input" | "tool_result.output" | "tool_result.error"}`
  | `${Turns}<>.data${"" | ".input" | ".output" | ".error"}`;

type RpcParamsAndResults =
  | `${Api}.rpc.call.mutate${"()[].params.*" | "=>.result"}`
  | `${Api}.rpc.setConfig.mutate()[].config.*`
  | `${Api}.rpc.${"setConfig.mutate" | "reload.mutate" | "getConfig.query"}=>.${"*" | "config.*"}`
  | `${Api}.rpc.${"quotaState" | "cacheState"}.query=>.*`;

/** The parts of a request that reach the engine unchanged. */
type RequestFields =
  | `${`${Turns}.respond()[]` | `${Api}.turns.respond.mutate()[]`}.contentBlocks[]`
  | `package.createClient=>.${"execute()[]" | "api.turns.start.mutate()[]" | "api.turns.execute.subscribe()[]"}.request.${"media[]" | "*"}`;

type Metadata = `${Api}.audit.list.query=>.items[].metadata.*`;

type Subscription =
  `${Api}.turns.${"events" | "execute"}.subscribe${"()[].onData()[]" | `=>.${"next" | "return" | "throw"}=>.value`}.data`;
type SubscriptionErrors =
  `${Api}.turns.${"events" | "execute"}.subscribe()[].${"onError()[]" | "onConnectionStateChange()[].error"}`;
type Subscriptions =
  | `${Subscription}.${"end.engineError.details" | "events[].data"}`
  | `${SubscriptionErrors}.${"data" | "shape.data"}.engineError.details`
  // From tRPC: what a link adds to an error.
  | `${SubscriptionErrors}.meta.*`;

type Thrown =
  `package.${"findReason" | "toErrorResponse" | "toPublicError"}()[]` | "package.EnginehouseError()[].cause";

type ListedUnknown =
  EngineErrors | EventPayloads | RpcParamsAndResults | RequestFields | Metadata | Subscriptions | Thrown;

/** From tRPC: what a caller passes to its links with a call. */
type CallContext = `${Api}.${string}()[].context.*`;

/** Compiles only for an empty union. Otherwise the compiler's error names the paths. */
type None<Path extends never> = Path;

export type UnlistedAny = None<Exclude<Found<"any">, ListedAny>>;
export type UnlistedUnknown = None<Exclude<Found<"unknown">, ListedUnknown | CallContext>>;
export type StaleAny = None<Exclude<ListedAny, Found<"any">>>;
export type StaleUnknown = None<Exclude<ListedUnknown, Found<"unknown">>>;
