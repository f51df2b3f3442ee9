import { readFile } from "node:fs/promises";
import { dirname, join, normalize } from "node:path";

export interface PackageFiles {
  /** By their path in the package. */
  files: ReadonlyMap<string, string>;
  /** What they import from elsewhere. */
  packages: ReadonlySet<string>;
}

const ENTRIES = ["client/index.js", "client/index.d.ts"] as const;

/**
 * Declarations that stand in for the server's own: the router's type names these two, nothing that a caller writes
 * depends on them, and they lead to every type that the server has.
 */
const STUBS: ReadonlyMap<string, string> = new Map([
  ["server/api/trpc/request-context.d.ts", "export type RequestContext = object;\n"],
  ["server/api/trpc/trpc.d.ts", "export type ProcedureMeta = object;\n"],
]);

/** Packages that the types may lead to. Those that only a server needs are not to be installed for them. */
const PACKAGES: ReadonlySet<string> = new Set([
  "@trpc/client",
  "@trpc/server",
  "eventsource",
  "eventsource-parser",
]);

/** Of everything that was compiled, what the client reaches. Throws when that is more than a client may need. */
export async function readPackageFiles(emitted: string): Promise<PackageFiles> {
  const files = new Map<string, string>();
  const packages = new Set<string>();
  const left: string[] = [...ENTRIES];
  for (let path = left.pop(); path !== undefined; path = left.pop()) {
    if (files.has(path)) continue;
    const text = toPublished(path, STUBS.get(path) ?? (await readFile(join(emitted, path), "utf8")));
    files.set(path, text);
    for (const specifier of findImports(text)) {
      if (specifier.startsWith(".")) left.push(resolveFile(path, specifier));
      else packages.add(toPackageName(path, specifier));
    }
  }
  for (const path of STUBS.keys()) {
    if (!files.has(path)) throw new Error(`nothing leads to ${path} any more: it needs no stub`);
  }
  return { files, packages };
}

/** Compilers before TypeScript 5.7 look for a `.js` beside a declaration, and all of them find it. */
function toPublished(path: string, text: string): string {
  return path.endsWith(".d.ts") ? text.replaceAll(/((?:from |import\()"\.[^"]+)\.ts"/g, '$1.js"') : text;
}

function findImports(text: string): string[] {
  return [...text.matchAll(/(?:\bfrom |\bimport |\bimport\()"([^"]+)"/g)].map((match) => match[1] ?? "");
}

function resolveFile(importer: string, specifier: string): string {
  const path = normalize(join(dirname(importer), specifier));
  if (importer.endsWith(".d.ts")) return path.replace(/\.js$/, ".d.ts");
  if (path.startsWith("client/")) return path;
  throw new Error(`${importer} runs ${path}, which is not the client's`);
}

function toPackageName(importer: string, specifier: string): string {
  const name = specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
  if (PACKAGES.has(name)) return name;
  throw new Error(`${importer} imports ${name}, which callers should not have to install`);
}
