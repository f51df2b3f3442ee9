/** Of a subnet of /16. Containers of an internal network reach the host at it. */
export function toGatewayAddress(subnet: string): string {
  return toInternalAddress(subnet, 1);
}

/**
 * The address of a container on an internal network. Such a network publishes no ports, so the service calls the
 * container's own address. The reserved host port gives the address: it is unique on this runtime host, and no other
 * engine gets it while the container may exist. An address that the daemon chose could belong to another engine after
 * a restart, and that engine would get the first one's key and turns.
 */
export function toInternalAddress(subnet: string, hostPort: number): string {
  const [first, second] = subnet.split(".");
  return `${first}.${second}.${hostPort >> 8}.${hostPort & 255}`;
}
