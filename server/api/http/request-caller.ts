import type { AppContext } from "../../compose.ts";
import { DomainError } from "../../errors.ts";
import { authenticate } from "../../keys/authenticate.ts";
import type { Caller } from "../../keys/caller.ts";

export interface RequestCaller {
  /** Returns the caller whose key came with the request. A batch of calls checks the key once. */
  authenticate(): Promise<Caller>;
  /** Checks the key again, for streams that stay open. */
  reauthenticate(): Promise<Caller>;
}

export interface CallerInput {
  authorization: string | undefined;
  /** See `toCallerAddress`. */
  address: string;
  /** Called each time when the key was accepted. */
  onKnown: (caller: Caller) => void;
}

/** Reads the key only, so it works before the body has arrived. */
export function openCaller(app: AppContext, { authorization, address, onKnown }: CallerInput): RequestCaller {
  let checked: Promise<Caller> | undefined;
  const check = async () => {
    const caller = await authenticate(app, readBearer(authorization), address);
    onKnown(caller);
    return caller;
  };
  return { authenticate: async () => (checked ??= check()), reauthenticate: check };
}

function readBearer(authorization: string | undefined): string {
  const key = /^Bearer +(\S.{0,4095})$/i.exec(authorization ?? "")?.[1];
  if (key === undefined) {
    throw new DomainError("INVALID_KEY", "the request has no bearer key: send `Authorization: Bearer <key>`");
  }
  return key;
}
