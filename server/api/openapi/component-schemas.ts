import { z } from "zod";

export type JsonSchema = Record<string, unknown>;

/** Which side a schema is shown for: what callers send, or what they get. Defaults make the difference. */
type Side = "input" | "output";

const REF = "#/components/schemas/";

/** Converts zod schemas to JSON Schema, and collects those with an id, which the document has once. */
export class ComponentSchemas {
  readonly #byId = new Map<string, JsonSchema>();
  /** Many operations share a schema, and converting one takes a millisecond. */
  readonly #converted = { input: new Map<z.ZodType, JsonSchema>(), output: new Map<z.ZodType, JsonSchema>() };

  /** What callers send. */
  ofInput(schema: z.ZodType): JsonSchema {
    return this.#convert(schema, "input");
  }

  /** What callers get. */
  ofOutput(schema: z.ZodType): JsonSchema {
    return this.#convert(schema, "output");
  }

  toComponents(): Record<string, JsonSchema> {
    return Object.fromEntries([...this.#byId].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  #convert(schema: z.ZodType, io: Side): JsonSchema {
    const known = this.#converted[io].get(schema) ?? this.#convertAnew(schema, io);
    this.#converted[io].set(schema, known);
    return known;
  }

  #convertAnew(schema: z.ZodType, io: Side): JsonSchema {
    const converted = z.toJSONSchema(schema, {
      io,
      // What JSON Schema cannot say is in the description, or in the schema that is shown instead.
      unrepresentable: "any",
      override: ({ zodSchema, jsonSchema }) => this.#adjust(jsonSchema, { schema: zodSchema, io }),
    });
    const { $schema: _, $defs = {}, ...root } = toComponentRefs(converted);
    for (const [id, definition] of Object.entries($defs)) this.#add(id, definition);
    return root;
  }

  #add(id: string, definition: JsonSchema): void {
    const known = this.#byId.get(id);
    if (known !== undefined && JSON.stringify(known) !== JSON.stringify(definition)) {
      throw new Error(`the API document would have two schemas "${id}": give one of them another id`);
    }
    this.#byId.set(id, definition);
  }

  #adjust(json: JsonSchema, { schema, io }: { schema: z.core.$ZodType; io: Side }): void {
    const { shownAs, description } = json;
    if (typeof shownAs === "function") {
      delete json["shownAs"];
      Object.assign(json, this.#convert(shownAs() as z.ZodType, io));
      if (description !== undefined) json["description"] = description;
    }
    if (isOpen(schema) && json["additionalProperties"] === false) delete json["additionalProperties"];
    if (json["maximum"] === Number.MAX_SAFE_INTEGER) delete json["maximum"];
    if (json["minimum"] === Number.MIN_SAFE_INTEGER) delete json["minimum"];
  }
}

/** A later version may add fields to replies. Only a strict schema refuses unknown fields. */
function isOpen({ _zod: { def } }: z.core.$ZodType): boolean {
  return def.type === "object" && (def as z.core.$ZodObjectDef).catchall === undefined;
}

interface Converted extends JsonSchema {
  $defs?: Record<string, JsonSchema>;
}

function toComponentRefs(converted: object): Converted {
  const text = JSON.stringify(converted).replaceAll('"$ref":"#/$defs/', `"$ref":"${REF}`);
  return JSON.parse(text) as Converted;
}
