import { z } from "zod";
import { ReadinessSchema } from "../routers/health-router.ts";
import type { ComponentSchemas } from "./component-schemas.ts";
import { jsonContent, type PathItem, REQUEST_ID_PARAMETER, toResponse } from "./operation.ts";

const LiveSchema = z.object({ ok: z.literal(true).describe("Always true.") });

/** The paths that call no procedure. */
export function toServicePaths(schemas: ComponentSchemas): Record<string, PathItem> {
  const readiness = jsonContent(schemas.ofOutput(ReadinessSchema));
  const probe = { tags: ["health"], security: [], parameters: [REQUEST_ID_PARAMETER] };
  return {
    "/healthz": {
      get: {
        ...probe,
        operationId: "healthz",
        summary: "Answers 200 while the process lives.",
        responses: { 200: toResponse("The process lives.", jsonContent(schemas.ofOutput(LiveSchema))) },
      },
    },
    "/readyz": {
      get: {
        ...probe,
        operationId: "readyz",
        summary: "Tells by its status whether this replica can serve calls.",
        responses: {
          200: toResponse("Calls can be served. A subsystem may be `degraded`.", readiness),
          503: toResponse("The database, its migrations or this process cannot serve calls.", readiness),
        },
      },
    },
    "/v1/openapi.json": {
      get: {
        ...probe,
        operationId: "openapi",
        summary: "Returns this document.",
        responses: {
          200: toResponse("An OpenAPI 3.1 document.", jsonContent({ type: "object" })),
          304: toResponse("The document has not changed since the version of `If-None-Match`."),
        },
      },
    },
  };
}
