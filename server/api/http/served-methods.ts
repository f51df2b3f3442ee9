/** The methods of every path that has a route. A server notes each route as it is registered. */
export class ServedMethods {
  readonly #paths = new Map<string, { pattern: RegExp; methods: Set<string> }>();

  /** `url` is a path with parameters as fastify writes it. */
  note({ url, method }: { url: string; method: string | readonly string[] }): void {
    const path = this.#paths.get(url) ?? { pattern: toPattern(url), methods: new Set<string>() };
    this.#paths.set(url, path);
    for (const one of [method].flat()) path.methods.add(one);
  }

  /** The methods that the path of a URL supports. undefined: there is no such path. */
  find(url: string): readonly string[] | undefined {
    const [path = ""] = url.split("?", 1);
    for (const { pattern, methods } of this.#paths.values()) {
      if (pattern.test(path)) return [...methods, "OPTIONS"];
    }
    return undefined;
  }
}

function toPattern(url: string): RegExp {
  const parts = url.split("/").map((part) => (part.startsWith(":") ? "[^/]+" : part.replaceAll(".", "\\.")));
  return new RegExp(`^${parts.join("/")}$`);
}
