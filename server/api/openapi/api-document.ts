import packageJson from "../../../package.json" with { type: "json" };
import { ComponentSchemas, type JsonSchema } from "./component-schemas.ts";
import { type RefusalName, toRefusal } from "./operation.ts";
import { RawRefusal, TrpcRefusal } from "./reply-schemas.ts";
import { toRawTurnPaths } from "./raw-turn-paths.ts";
import { toServicePaths } from "./service-paths.ts";
import { toTrpcPaths } from "./trpc-paths.ts";

/** An OpenAPI 3.1 document. */
export interface ApiDocument {
  openapi: "3.1.0";
  info: { title: string; version: string; description: string };
  servers: object[];
  tags: object[];
  paths: Record<string, JsonSchema>;
  components: Record<
    "schemas" | "responses" | "securitySchemes" | "parameters" | "headers",
    Record<string, JsonSchema>
  >;
}

const DESCRIPTION = `One isolated, long-lived AI-agent engine for each user of each product.

**Calls.** A procedure is a path below \`/trpc\`, in the format of tRPC 11 without a transformer: plain JSON. A success is
\`{"result":{"data":…}}\`, a refusal is \`{"error":{…}}\`. Up to 10 queries or mutations can be one batch: \`?batch=1\`,
paths separated by commas, inputs and answers by position.

The routes below \`/v1\` serve turns as plain HTTP and server-sent events, for any client. They call the same procedures.

**Values.** Instants are ISO 8601 in UTC. Durations and sizes carry their unit in the name. A field of a reply is null and
not absent, unless it is optional here. A later version may add fields to replies and values to open texts. Lengths of
texts count UTF-16 units.

**Keys.** Send \`Authorization: Bearer <key>\`. The scopes that a platform key needs are in \`security\`.

**Retries.** A mutation with an \`idempotencyKey\`, and a turn with its \`turnId\`, may be repeated: the effect comes once.
\`retryAfterMs\` says when the same call may work.

**Limits.** 1 MiB for a body, 8 MiB where a turn starts; 16 KiB for URL and headers.`;

const TAGS = [
  { name: "engines", description: "The life of engines." },
  { name: "engineKeys", description: "The keys with which a product calls its engines directly." },
  { name: "rpc", description: "Calls into an engine." },
  { name: "turns", description: "Turns and their events." },
  { name: "products", description: "Products, for operators." },
  { name: "platformKeys", description: "The keys of products, for operators." },
  { name: "operators", description: "The keys of operators, for operators." },
  { name: "fleet", description: "The installation as a whole, for operators." },
  { name: "audit", description: "The audit log." },
  { name: "health", description: "Whether a replica lives and serves. No key." },
];

const PARAMETERS = {
  RequestId: {
    name: "X-Request-Id",
    in: "header",
    required: false,
    description:
      "Your id of this request, for the log and the audit log. Another text is replaced by an id of the service.",
    schema: { type: "string", pattern: "^[A-Za-z0-9._-]{1,64}$" },
  },
  LastEventId: {
    name: "Last-Event-ID",
    in: "header",
    required: false,
    description: "The `id` of the last message that you have: the stream goes on after it.",
    schema: { type: "string", pattern: "^[0-9]{1,15}$" },
  },
};

const HEADERS = {
  RequestId: {
    description: "The id of this request, in the log and the audit log too.",
    schema: { type: "string" },
  },
  TurnId: { description: "The turn's id, also in refusals.", schema: { type: "string", format: "uuid" } },
  RateLimitPolicy: {
    description:
      'The product\'s rate limits that concern this call, as in draft-ietf-httpapi-ratelimit-headers: `"requests";q=600;w=60`. `q` is the number of calls, `w` the window in seconds. `turns` counts started turns. Absent: the product has no such limit.',
    schema: { type: "string" },
  },
  RateLimit: {
    description:
      'What is left of these limits: `"requests";r=599;t=42`. `r` is the number of calls, `t` the seconds until the window ends.',
    schema: { type: "string" },
  },
  RetryAfter: {
    description: "`retryAfterMs` in whole seconds, rounded up. Absent: the same request will not work later.",
    schema: { type: "integer", minimum: 0 },
  },
};

const SECURITY_SCHEMES = {
  platformKey: {
    type: "http",
    scheme: "bearer",
    description:
      "A platform key (`ehp_…`). It acts for its own product only. Its scopes: `read`, `lifecycle`, `turns`, `rpc`, `keys`; all but `keys` unless it was issued otherwise.",
  },
  operatorKey: {
    type: "http",
    scheme: "bearer",
    description:
      "An operator key (`eha_…`). It may make every call, and names the product of a call by `product`.",
  },
};

/** Makes the document from the router, its schemas and the table of other paths. */
export function toApiDocument(): ApiDocument {
  const schemas = new ComponentSchemas();
  const responses: Record<RefusalName, JsonSchema> = {
    TrpcRefusal: toRefusal(schemas.ofOutput(TrpcRefusal)),
    RawRefusal: toRefusal(schemas.ofOutput(RawRefusal)),
  };
  // Before the components, because converting fills them.
  const paths = { ...toRawTurnPaths(schemas), ...toServicePaths(schemas), ...toTrpcPaths(schemas) };
  return {
    openapi: "3.1.0",
    info: { title: "Enginehouse", version: packageJson.version, description: DESCRIPTION },
    servers: [{ url: "/", description: "The replica that serves this document." }],
    tags: TAGS,
    paths,
    components: {
      schemas: schemas.toComponents(),
      responses,
      securitySchemes: SECURITY_SCHEMES,
      parameters: PARAMETERS,
      headers: HEADERS,
    },
  };
}
