import { readFile } from "node:fs/promises";
import { dirname, join, normalize } from "node:path";

export interface PackageFiles {
  /** The texts of the files, by their path in the package. */
  files: ReadonlyMap<string, string>;
  /** The packages that the files import. */
  packages: ReadonlySet<string>;
}

const ENTRIES = ["client/index.js", "client/index.d.ts"] as const;

/**
 * Replacements for two declarations of the server. The router's type names both, and they import every type of the
 * server, but no caller's code depends on them.
 */
const STUBS: ReadonlyMap<string, string> = new Map([
  ["server/api/trpc/request-context.d.ts", "export type RequestContext = object;\n"],
  ["server/api/trpc/trpc.d.ts", "export type ProcedureMeta = object;\n"],
]);

/** The packages that the client may import. Callers must not have to install packages that only the server needs. */
const PACKAGES: ReadonlySet<string> = new Set([
  "@trpc/client",
  "@trpc/server",
  "eventsource",
  "eventsource-parser",
]);

/** Selects the compiled files that the client imports. Throws if it imports code of the server or other packages. */
export async function readPackageFiles(emitted: string): Promise<PackageFiles> {
  const files = new Map<string, string>();
  const packages = new Set<string>();
  const pending: string[] = [...ENTRIES];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    if (files.has(path)) continue;
    const text = toPublished(path, STUBS.get(path) ?? (await readFile(join(emitted, path), "utf8")));
    files.set(path, text);
    for (const specifier of findImports(text)) {
      if (specifier.startsWith(".")) pending.push(resolveFile(path, specifier));
      else packages.add(toPackageName(path, specifier));
    }
  }
  for (const path of STUBS.keys()) {
    if (!files.has(path)) throw new Error(`no file imports ${path} any more: remove its stub`);
  }
  return { files, packages };
}

/** Declarations must import `.js`: compilers before TypeScript 5.7 do not resolve `.ts` in them. */
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
  throw new Error(`${importer} imports ${path} at run time, but only types of the server may be imported`);
}

function toPackageName(importer: string, specifier: string): string {
  const name = specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
  if (PACKAGES.has(name)) return name;
  throw new Error(
    `${importer} imports ${name}, which callers would have to install: import only ${[...PACKAGES].join(", ")}`,
  );
}
