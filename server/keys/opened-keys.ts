import type { Keyring } from "./keyring.ts";

export const MAX_REMEMBERED = 1_000;

interface OpenedKey {
  sealed: string;
  key: string;
}

/** By place, in order of use, which is the order in which they are forgotten too. */
const openedBy = new WeakMap<Keyring, Map<string, OpenedKey>>();

/**
 * What `Keyring.open` opens, remembered for the places that were asked for last: each call to an engine needs its key,
 * and to open it is the dearest single step of one. A new text of a place takes the old one's. Throws likewise.
 */
export function openKey(keyring: Keyring, sealed: string, place: string): string {
  let opened = openedBy.get(keyring);
  if (opened === undefined) {
    opened = new Map();
    openedBy.set(keyring, opened);
  }
  const known = opened.get(place);
  const found = known?.sealed === sealed ? known : { sealed, key: keyring.open(sealed, place) };
  opened.delete(place);
  opened.set(place, found);
  const [oldest] = opened.keys();
  if (opened.size > MAX_REMEMBERED && oldest !== undefined) opened.delete(oldest);
  return found.key;
}
