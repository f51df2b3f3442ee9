import { join } from "node:path";

// The package `@enginehouse/client` is a link to a folder above this one.
const root = join(import.meta.dirname, "..", "..");

export default { typescript: { ignoreBuildErrors: true }, turbopack: { root }, outputFileTracingRoot: root };
