import { parse } from "shell-quote";

/**
 * Splits a command line into words as a POSIX shell does. Throws for everything that needs a shell: operators,
 * patterns, variables, substitutions, comments and assignments.
 */
export function splitCommand(text: string): [string, ...string[]] {
  if (hasOpenQuote(text)) throw new Error("it has an opening quote without a closing one");
  if (text.includes("`")) throw new Error("it has a command substitution");
  const words = parse(text, (name) => ({ variable: name })).map(toWord);
  const [program, ...rest] = words;
  if (program === undefined || program === "") throw new Error("it names no program");
  if (/^\w+=/.test(program)) throw new Error("it begins with an assignment");
  return [program, ...rest];
}

function toWord(entry: ReturnType<typeof parse>[number]): string {
  if (typeof entry === "string") return entry;
  if ("comment" in entry) throw new Error("it has a comment");
  if (!("op" in entry)) throw new Error("it has a variable");
  throw new Error(entry.op === "glob" ? "it has a file name pattern" : `it has the operator ${entry.op}`);
}

/** shell-quote silently drops a quote without a closing one. */
function hasOpenQuote(text: string): boolean {
  let open = "";
  for (let index = 0; index < text.length; index += 1) {
    const character = text.charAt(index);
    if (character === "\\" && open !== "'") index += 1;
    else if (open === "" && (character === "'" || character === '"')) open = character;
    else if (character === open) open = "";
  }
  return open !== "";
}
