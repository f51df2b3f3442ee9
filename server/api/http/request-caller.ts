import type { FastifyRequest } from "fastify";
import type { AppContext } from "../../compose.ts";
import { DomainError } from "../../errors.ts";
import { authenticate } from "../../keys/authenticate.ts";
import { toOwner, type Caller } from "../../keys/caller.ts";
import { toCallerAddress } from "./caller-address.ts";
import type { CallerConnections } from "./caller-connections.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** The caller of this request. null until the body or the call asks for it. */
    caller: RequestCaller | null;
    /** The name of the key that came with the request; null until the key was accepted. */
    actorName: string | null;
  }
}

export interface RequestCaller {
  /** Returns the caller whose key came with the request. A batch of calls checks the key once. */
  authenticate(): Promise<Caller>;
  /** Checks the key again, for streams that stay open. */
  reauthenticate(): Promise<Caller>;
  /** The caller whose key was accepted last. undefined: no key was accepted. */
  readonly known: Caller | undefined;
}

export interface CallerContext {
  app: AppContext;
  connections: Pick<CallerConnections, "noteKnown">;
}

/** A request's body and its call share one check of the key. */
export function getCaller({ app, connections }: CallerContext, request: FastifyRequest): RequestCaller {
  request.caller ??= openCaller(app, {
    authorization: request.headers.authorization,
    address: toCallerAddress(request.raw, app.config.trustProxy),
    onKnown: (caller) => {
      request.actorName = caller.actor.name;
      connections.noteKnown(request.raw.socket, toOwner(caller));
    },
  });
  return request.caller;
}

interface CallerInput {
  authorization: string | undefined;
  /** See `toCallerAddress`. */
  address: string;
  /** Called each time when the key was accepted. */
  onKnown: (caller: Caller) => void;
}

/** Reads the key only, so it works before the body has arrived. */
function openCaller(app: AppContext, { authorization, address, onKnown }: CallerInput): RequestCaller {
  let checked: Promise<Caller> | undefined;
  let known: Caller | undefined;
  const check = async () => {
    const caller = await authenticate(app, readBearer(authorization), address);
    known = caller;
    onKnown(caller);
    return caller;
  };
  return {
    authenticate: async () => (checked ??= check()),
    reauthenticate: check,
    get known() {
      return known;
    },
  };
}

function readBearer(authorization: string | undefined): string {
  const key = /^Bearer +(\S.{0,4095})$/i.exec(authorization ?? "")?.[1];
  if (key === undefined) {
    throw new DomainError("INVALID_KEY", "the request has no bearer key: send `Authorization: Bearer <key>`");
  }
  return key;
}
