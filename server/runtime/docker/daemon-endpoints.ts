/** One kind of request to the Docker daemon. `{id}` stands for an id or a name, `{image}` for an image with slashes. */
export interface DaemonEndpoint {
  method: "GET" | "POST" | "DELETE";
  path: string;
  for: string;
}

/**
 * Every request that this service makes. A socket proxy needs to pass these and no others: deploy/docker-proxy.conf is
 * compared with this table, and the tests of the docker runtime run behind a proxy that refuses everything else.
 */
export const DAEMON_ENDPOINTS: readonly DaemonEndpoint[] = [
  { method: "GET", path: "/_ping", for: "whether the daemon answers" },
  { method: "GET", path: "/info", for: "the daemon's id, at a start" },
  { method: "GET", path: "/system/df", for: "the sizes of volumes, only if a limit is set" },
  { method: "GET", path: "/events", for: "runtime events" },
  { method: "POST", path: "/containers/create", for: "containers of engines" },
  { method: "GET", path: "/containers/json", for: "observing engines, users of a volume" },
  { method: "GET", path: "/containers/{id}/json", for: "observing an engine" },
  { method: "GET", path: "/containers/{id}/logs", for: "the last lines of an engine that failed" },
  { method: "GET", path: "/containers/{id}/stats", for: "memory and processor time" },
  { method: "POST", path: "/containers/{id}/start", for: "starting an engine" },
  { method: "POST", path: "/containers/{id}/stop", for: "stopping an engine" },
  { method: "POST", path: "/containers/{id}/pause", for: "pausing an engine" },
  { method: "POST", path: "/containers/{id}/unpause", for: "resuming a paused engine" },
  { method: "POST", path: "/containers/{id}/update", for: "the restart policy of a stopped engine" },
  { method: "DELETE", path: "/containers/{id}", for: "removing a container" },
  { method: "GET", path: "/images/{image}/json", for: "the id and the user of an image" },
  { method: "POST", path: "/images/create", for: "pulling an image" },
  {
    method: "POST",
    path: "/build",
    for: "the images of the network probe and of the reference engine",
  },
  { method: "GET", path: "/networks", for: "finding the engines' network" },
  { method: "POST", path: "/networks/create", for: "making the engines' network" },
  { method: "DELETE", path: "/networks/{id}", for: "a network that was made twice" },
  { method: "GET", path: "/volumes", for: "finding the engines' volumes" },
  { method: "POST", path: "/volumes/create", for: "volumes of engines, the marker" },
  { method: "GET", path: "/volumes/{id}", for: "whether a volume exists, the marker" },
  { method: "DELETE", path: "/volumes/{id}", for: "the data of a destroyed engine" },
];

const SEGMENT = "[A-Za-z0-9][A-Za-z0-9_.:@-]*";
const SEGMENTS: Readonly<Record<string, string>> = { "{id}": SEGMENT, "{image}": `${SEGMENT}(/${SEGMENT})*` };

/**
 * A regular expression for the method and the raw path, without the query. It has no percent sign and no dotted
 * segment, so a proxy and the daemon cannot read one path in two ways.
 */
export function toEndpointPattern({ method, path }: DaemonEndpoint): string {
  return `^${method} ${path.replaceAll(/\{\w+\}/g, (name) => SEGMENTS[name] ?? "")}$`;
}

export function isDaemonEndpoint(method: string, pathWithQuery: string): boolean {
  const [path = ""] = pathWithQuery.split("?", 1);
  return DAEMON_ENDPOINTS.some((endpoint) =>
    new RegExp(toEndpointPattern(endpoint)).test(`${method} ${path}`),
  );
}
