/** For runtimes on this machine: one start of one container is one process. */
export function toProcessIdentity(containerId: string, startedAt: string | null): string {
  return `${containerId}@${startedAt ?? "never"}`;
}

/** For runtimes that publish engines on the loopback interface of this machine. */
export function toLoopbackEndpoint(hostPort: number | null): string | null {
  return hostPort === null ? null : `http://127.0.0.1:${hostPort}`;
}
