/** Of paths that are no streams. Some load balancers send HEAD. fastify leaves its body out. */
export const PROBE_METHODS = ["GET", "HEAD"];
