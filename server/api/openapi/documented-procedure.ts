import type { ProcedureType } from "@trpc/server";
import type { z } from "zod";
import { appRouter } from "../routers/router.ts";
import type { ProcedureMeta } from "../trpc/trpc.ts";

/** One procedure, with what the API document needs of it. */
export interface DocumentedProcedure {
  path: string;
  type: ProcedureType;
  meta: ProcedureMeta;
  /** undefined: the procedure has no input. */
  input: z.ZodType | undefined;
  /** undefined: a subscription. */
  output: z.ZodType | undefined;
  /** The names of the input's fields. */
  fields: ReadonlySet<string>;
}

/** tRPC's types hide its record of procedures, which is flat and keyed by path. */
interface Definition {
  _def: { type: ProcedureType; meta?: ProcedureMeta; inputs: readonly z.ZodType[]; output?: z.ZodType };
}

/** All procedures of the router, in its order. */
export function listProcedures(): DocumentedProcedure[] {
  const procedures = appRouter._def.procedures as unknown as Record<string, Definition>;
  return Object.entries(procedures).map(([path, { _def }]) => {
    const [input, ...others] = _def.inputs;
    if (others.length > 0) throw new Error(`${path} has more than one input schema: the document shows one`);
    const fields = new Set(input === undefined ? [] : Object.keys(findShape(input)));
    return { path, type: _def.type, meta: _def.meta ?? {}, input, output: _def.output, fields };
  });
}

/** The fields of an object's schema. Wrappers, such as a default, are opened. */
function findShape(schema: z.core.$ZodType): object {
  const { def } = schema._zod;
  if (def.type === "object") return (def as z.core.$ZodObjectDef).shape;
  return "innerType" in def ? findShape(def.innerType as z.core.$ZodType) : {};
}
