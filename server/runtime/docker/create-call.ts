import type { DockerClient } from "./client.ts";

export interface DockerCreateInput {
  path: "/containers/create" | "/volumes/create";
  query?: Readonly<Record<string, string>>;
  body: object;
}

/**
 * Makes a create call and returns the daemon's answer. dockerode's own functions also put the body into the URL. So the
 * provider keys in a container's environment would reach the logs of the daemon and of proxies.
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
