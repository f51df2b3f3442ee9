import type * as Package from "@enginehouse/client";

/*
 * Where the package's types say nothing. A walk over all that is exported names each such place by its path, and what
 * it finds has to be what is listed here: a hole that opens anywhere in the server's types does not compile.
 *
 *     x.name a member    x.* any other member    x[] an item    x() a parameter list    x=> a result    x<> a stream
 */

type Loose = "any" | "unknown";
type KindOf<T> = 0 extends 1 & T ? "any" : unknown extends T ? "unknown" : "typed";

type Primitive = string | number | boolean | symbol | null | undefined | void;
/** The platform's own: what is loose in there is not ours. */
type Foreign = AbortSignal | typeof globalThis.fetch;

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

/** Both overloads, where there are two: a function with one matches it twice. */
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

/** An error's cause is whatever was thrown, on every platform; and it leads from error to error without an end. */
type NamesOf<T> = Exclude<KnownNames<T>, T extends Error ? "cause" : never>;
type KnownNames<T> = keyof {
  [Name in keyof T as Name extends string ? (string extends Name ? never : Name) : never]: true;
} &
  string;

type Found<Kind extends Loose> =
  LooseIn<typeof Package, Kind, "package"> | LooseIn<Package.EventData, Kind, "event">;

type Api = "package.createClient=>.api";

/** tRPC's iterator leaves it to TypeScript's defaults what is returned and sent; what it yields is typed. */
type ListedAny =
  | `${Api}.turns.${"events" | "execute"}.subscribe=>.${"next" | "return" | "throw"}${"()[]" | "=>.value"}`
  | `${Api}.turns.${"events" | "execute"}.subscribe=><>`;

/** What an engine says in words of its own about a failure. */
type EngineErrors =
  | "event.error.details"
  | "package.createClient=>.execute=><>.data.details"
  | `package.createClient=>.execute=>${"" | ".cancel=>"}.end.engineError.details`
  | `package.EnginehouseError${"()[]" | "=>"}${"" | ".end"}.engineError.details`
  | `${Api}.turns.cancel.mutate=>.end.engineError.details`
  | `${Api}.turns.get.query=>.end.engineError.details`
  | `${Api}.turns.list.query=>.items[].end.engineError.details`;

type EventPayloads =
  | `event.${"hitl_resolved" | "working_memory_update" | "compaction_event" | "usage" | "heartbeat"}`
  | `event.${"tool_call.input" | "tool_result.output" | "tool_result.error"}`
  | `package.createClient=>.execute=><>.data${"" | ".input" | ".output" | ".error"}`;

type RpcParamsAndResults =
  | `${Api}.rpc.call.mutate${"()[].params.*" | "=>.result"}`
  | `${Api}.rpc.setConfig.mutate()[].config.*`
  | `${Api}.rpc.${"setConfig.mutate" | "reload.mutate" | "getConfig.query"}=>.${"*" | "config.*"}`
  | `${Api}.rpc.${"quotaState" | "cacheState"}.query=>.*`;

/** What goes to an engine as it is. */
type RequestFields =
  `package.createClient=>.${"execute()[]" | "api.turns.start.mutate()[]" | "api.turns.execute.subscribe()[]"}.request.${"media[]" | "*"}`;

type Metadata = `${Api}.audit.list.query=>.items[].metadata.*`;

type Subscription =
  `${Api}.turns.${"events" | "execute"}.subscribe${"()[].onData()[]" | `=>.${"next" | "return" | "throw"}=>.value`}.data`;
type SubscriptionErrors =
  `${Api}.turns.${"events" | "execute"}.subscribe()[].${"onError()[]" | "onConnectionStateChange()[].error"}`;
type Subscriptions =
  | `${Subscription}.${"end.engineError.details" | "events[].data"}`
  | `${SubscriptionErrors}.${"data" | "shape.data"}.engineError.details`
  // tRPC's own: what a link notes beside an error.
  | `${SubscriptionErrors}.meta.*`;

type Thrown = "package.findReason()[]" | "package.EnginehouseError()[].cause";

type ListedUnknown =
  EngineErrors | EventPayloads | RpcParamsAndResults | RequestFields | Metadata | Subscriptions | Thrown;

/** tRPC's own: what a caller gives its links along with a call. */
type CallContext = `${Api}.${string}()[].context.*`;

/** The compiler names whatever is there. */
type None<Place extends never> = Place;

export type UnlistedAny = None<Exclude<Found<"any">, ListedAny>>;
export type UnlistedUnknown = None<Exclude<Found<"unknown">, ListedUnknown | CallContext>>;
export type StaleAny = None<Exclude<ListedAny, Found<"any">>>;
export type StaleUnknown = None<Exclude<ListedUnknown, Found<"unknown">>>;
