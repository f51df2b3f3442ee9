import type { DockerClient } from "./client.ts";

export interface DockerCreateInput {
  path: "/containers/create" | "/volumes/create";
  query?: Readonly<Record<string, string>>;
  body: object;
}

/**
 * A create call and the daemon's whole answer. Not dockerode's own: those put the body into the URL as well, and with
 * it the provider keys of a container's environment, where the daemon's debug log and each proxy would keep them.
 */
export async function createInDocker(client: DockerClient, input: DockerCreateInput): Promise<unknown> {
  const { query, body } = input;
  return client.call(
    (docker, abortSignal) =>
      new Promise<unknown>((resolve, reject) => {
        const request = {
          path: query === undefined ? input.path : `${input.path}?`,
          method: "POST",
          options: { ...(query === undefined ? {} : { _query: query }), _body: body },
          statusCodes: { 200: true, 201: true },
          abortSignal,
        };
        docker.modem.dial(request, (error, result) => (error ? reject(error) : resolve(result)));
      }),
  );
}
