import { z } from "zod";
import { splitCommand } from "./split-command.ts";
import { toErrorMessage } from "../errors.ts";
import { openKeyring } from "../keys/keyring.ts";

/** How the text of a variable becomes a value. */
export interface ValueKind<T> {
  /** The values that the variable takes. For people. */
  takes: string;
  schema: z.ZodType<T, string>;
}

/** Node's timers fire at once for longer times. */
const MAX_TIMER_S = 2_147_483;
const MAX_RETENTION_S = 366 * 86_400;

export function wholeNumber(min: number, max: number): ValueKind<number> {
  const schema = z.string().regex(/^\d+$/).transform(Number).pipe(z.int().min(min).max(max));
  return { takes: `a whole number from ${min} to ${max}`, schema };
}

export function decimal(min: number, max: number): ValueKind<number> {
  const schema = z
    .string()
    .regex(/^(?:\d+(?:\.\d*)?|\.\d+)$/)
    .transform(Number)
    .pipe(z.number().min(min).max(max));
  return { takes: `a number from ${min} to ${max}`, schema };
}

/** The text is in seconds, the value in milliseconds. */
export function seconds(min: number, max: number = MAX_TIMER_S): ValueKind<number> {
  const { schema } = decimal(min, max);
  return {
    takes: `seconds from ${min} to ${max}, fractions allowed`,
    schema: schema.transform((value) => Math.round(value * 1000)),
  };
}

export const retentionSeconds = seconds(1, MAX_RETENTION_S);
/** From a day to a hundred years. */
export const auditRetentionSeconds = seconds(86_400, 100 * MAX_RETENTION_S);
export const port = wholeNumber(1, 65_535);
/** 0: the system picks a free port. */
export const listenPort = wholeNumber(0, 65_535);

export const flag: ValueKind<boolean> = {
  takes: "true or false",
  schema: z.enum(["true", "false"]).transform((text) => text === "true"),
};

export function oneOf<const T extends readonly string[]>(names: T): ValueKind<T[number]> {
  return { takes: `one of ${names.join(", ")}`, schema: z.enum(names) };
}

function matching(pattern: RegExp, takes: string): ValueKind<string> {
  return { takes, schema: z.string().regex(pattern) };
}

export const hostName = matching(/^[A-Za-z0-9_.:-]+$/, "a host name or an address");
export const path = matching(/^[^\0]+$/, "a path");
export const networkName = matching(/^[A-Za-z0-9][A-Za-z0-9_.-]*$/, "the name of a Docker network");
export const internalSubnet = matching(
  /^(?:10\.(?:25[0-5]|2[0-4]\d|1?\d?\d)|172\.(?:1[6-9]|2\d|3[01])|192\.168)\.0\.0\/16$/,
  "a private IPv4 network of /16, such as 10.213.0.0/16",
);
export const userName = matching(
  /^[A-Za-z0-9_.-]+(?::[A-Za-z0-9_.-]+)?$/,
  "uid[:gid], or a user name of the image",
);
export const roleName = matching(/^[A-Za-z_][A-Za-z0-9_$-]{0,62}$/, "the name of a Postgres role");
export const dockerHost = matching(
  /^(?:unix:\/\/\/|(?:tcp|https?):\/\/[^\s/])\S*$/,
  "unix:///path, tcp://host:port, http://… or https://…",
);
export const databaseUrl = matching(
  /^postgres(?:ql)?:\/\/\S+$/,
  "postgres://user:password@host:port/database",
);
export const keyHash: ValueKind<string> = {
  takes: "the SHA-256 of the key, 64 hexadecimal digits",
  schema: z
    .string()
    .regex(/^[0-9a-fA-F]{64}$/)
    .toLowerCase(),
};
/** Refuses keys that an HTTP header cannot carry: they would never match. */
export const opaqueKey = matching(
  /^[\x21-\x7e]{32,512}$/,
  "32 to 512 printable ASCII characters without spaces",
);

export const image = matching(/^\w[\w./:@-]*$/, "an image name with a tag or a digest");

function listOf(item: z.ZodType<string, string>, takes: string): ValueKind<string[]> {
  const schema = z
    .string()
    .transform((text) => text.split(",").map((part) => part.trim()))
    .transform((parts) => [...new Set(parts.filter((part) => part !== ""))])
    .pipe(z.array(item));
  return { takes, schema };
}

export const imageList = listOf(image.schema, "image names, separated by commas");
export const variableNames = listOf(
  z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/),
  "names of environment variables, separated by commas",
);
export const capabilities = listOf(
  z.string().regex(/^[A-Z][A-Z0-9_]*$/),
  "Linux capabilities such as NET_BIND_SERVICE, separated by commas",
);

export const masterKeys: ValueKind<string> = {
  takes: "id:base64,… with keys of 32 bytes; the first key encrypts, all keys decrypt",
  schema: z.string().superRefine((text, ctx) => {
    addThrown(ctx, () => openKeyring(text));
  }),
};

export const command: ValueKind<string[]> = {
  takes: "a command line; it is split into words as in a shell, and runs without a shell",
  schema: z.string().transform((text, ctx) => addThrown(ctx, () => splitCommand(text)) ?? z.NEVER),
};

/** The thrown message becomes the detail of the problem. No message of these functions quotes a secret. */
function addThrown<T>(ctx: z.RefinementCtx, read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    ctx.addIssue({ code: "custom", message: toErrorMessage(error) });
    return undefined;
  }
}
