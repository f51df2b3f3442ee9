/**
 * Cuts the `data` of each event out of a batch's JSON text. The text keeps numbers that JavaScript cannot hold, such as
 * 9007199254740993 or 1e400. The text must be valid JSON: a batch that was parsed before.
 */
export function cutEventData(batchText: string): string[] {
  const texts: string[] = [];
  const list = findMember(batchText, skipSpace(batchText, 0), "events");
  for (let at = skipSpace(batchText, list + 1); batchText[at] === "{";) {
    const start = findMember(batchText, at, "data");
    const end = skipValue(batchText, start);
    texts.push(batchText.slice(start, end));
    at = skipSpace(batchText, skipNested(batchText, end, 1));
    if (batchText[at] === ",") at = skipSpace(batchText, at + 1);
  }
  return texts;
}

/** Returns where the value of that member begins, in the object that begins at `at`. */
function findMember(text: string, at: number, name: string): number {
  for (let next = skipSpace(text, at + 1); text[next] === '"';) {
    const nameEnd = skipString(text, next);
    const value = skipSpace(text, skipSpace(text, nameEnd) + 1);
    if (text.slice(next + 1, nameEnd - 1) === name) return value;
    // After the value: a comma, or the object's end.
    next = skipSpace(text, skipSpace(text, skipValue(text, value)) + 1);
  }
  throw new Error(`a batch of the service lacks the member "${name}"`);
}

const SPACES = " \t\n\r";

function skipSpace(text: string, at: number): number {
  let next = at;
  while (next < text.length && SPACES.includes(text.charAt(next))) next += 1;
  return next;
}

/** Returns where the value ends that begins at `at`. */
function skipValue(text: string, at: number): number {
  const first = text[at];
  if (first === '"') return skipString(text, at);
  if (first === "{" || first === "[") return skipNested(text, at + 1, 1);
  let next = at;
  while (next < text.length && !",]} \t\n\r".includes(text.charAt(next))) next += 1;
  return next;
}

function skipString(text: string, at: number): number {
  let quote = text.indexOf('"', at + 1);
  while (isEscaped(text, quote)) quote = text.indexOf('"', quote + 1);
  return quote + 1;
}

function isEscaped(text: string, at: number): boolean {
  let before = at - 1;
  while (text[before] === "\\") before -= 1;
  return (at - 1 - before) % 2 === 1;
}

/** Returns where the object or list ends that encloses `at`, `depth` levels up. */
function skipNested(text: string, at: number, depth: number): number {
  let open = depth;
  let next = at;
  while (open > 0) {
    const character = text[next];
    if (character === undefined) throw new Error("a batch of the service is not complete");
    if (character === '"') {
      next = skipString(text, next);
      continue;
    }
    if (character === "{" || character === "[") open += 1;
    else if (character === "}" || character === "]") open -= 1;
    next += 1;
  }
  return next;
}
