import { RAW_ROUTES } from "../raw/raw-routes.ts";

/** Of paths that are no streams. Some load balancers send HEAD. fastify leaves its body out. */
export const PROBE_METHODS = ["GET", "HEAD"];

const SERVED: readonly { path: RegExp; methods: readonly string[] }[] = [
  { path: /^\/trpc\/[^/]+$/, methods: ["GET", "POST", "OPTIONS"] },
  { path: /^\/(?:healthz|readyz|v1\/openapi\.json)$/, methods: [...PROBE_METHODS, "OPTIONS"] },
  ...RAW_ROUTES.map(({ url, method }) => ({ path: toPattern(url), methods: [method, "OPTIONS"] })),
];

/** The methods that the path of a URL supports. undefined: there is no such path. */
export function findServedMethods(url: string): readonly string[] | undefined {
  const [path = ""] = url.split("?", 1);
  return SERVED.find((served) => served.path.test(path))?.methods;
}

function toPattern(url: string): RegExp {
  return new RegExp(`^${url.replaceAll(/:\w+/g, "[^/]+")}$`);
}
