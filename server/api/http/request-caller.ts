import type { AppContext } from "../../compose.ts";
import { DomainError } from "../../errors.ts";
import { authenticate } from "../../keys/authenticate.ts";
import type { Caller } from "../../keys/caller.ts";

export interface RequestCaller {
  /** Whose key came with the request; asked once, however many calls it holds. */
  authenticate(): Promise<Caller>;
  /** Asks anew, for calls that go on long after that. */
  reauthenticate(): Promise<Caller>;
}

/** `onKnown` hears the name of a caller who was let in. */
export function openCaller(
  app: AppContext,
  authorization: string | undefined,
  onKnown: (name: string) => void,
): RequestCaller {
  let asked: Promise<Caller> | undefined;
  const ask = async () => {
    const caller = await authenticate(app, readBearer(authorization));
    onKnown(caller.actor.name);
    return caller;
  };
  return { authenticate: async () => (asked ??= ask()), reauthenticate: ask };
}

function readBearer(authorization: string | undefined): string {
  const key = /^Bearer +(\S.{0,4095})$/i.exec(authorization ?? "")?.[1];
  if (key === undefined) {
    throw new DomainError("INVALID_KEY", "send `Authorization: Bearer <key>` with a key of this service");
  }
  return key;
}
