import type { Keyring } from "./keyring.ts";

export const MAX_REMEMBERED = 1_000;

/** By place and sealed text, in order of use, which is the order in which they are forgotten too. */
const openedBy = new WeakMap<Keyring, Map<string, string>>();

/**
 * What `Keyring.open` opens, remembered for the texts that were used last: each call to an engine needs its key, and
 * to open it is the dearest single step of one. What is kept is in the memory that holds the master keys, too. Throws
 * likewise.
 */
export function openKey(keyring: Keyring, sealed: string, associatedData: string): string {
  let opened = openedBy.get(keyring);
  if (opened === undefined) {
    opened = new Map();
    openedBy.set(keyring, opened);
  }
  const place = JSON.stringify([associatedData, sealed]);
  const key = opened.get(place) ?? keyring.open(sealed, associatedData);
  opened.delete(place);
  opened.set(place, key);
  const [oldest] = opened.keys();
  if (opened.size > MAX_REMEMBERED && oldest !== undefined) opened.delete(oldest);
  return key;
}
