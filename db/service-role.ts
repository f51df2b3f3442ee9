import { randomBytes } from "node:crypto";
import postgres from "postgres";

/**
 * Makes a role that may log in and nothing else, or gives it a new password if it exists. Returns the url of the same
 * database for this role.
 */
export async function openServiceRole(adminUrl: string, role: string): Promise<string> {
  const password = randomBytes(24).toString("base64url");
  const sql = postgres(adminUrl, { max: 1, connect_timeout: 10, onnotice: () => {} });
  try {
    const known = await sql`select from pg_roles where rolname = ${role}`;
    const verb = known.length === 0 ? "create" : "alter";
    await sql.unsafe(`${verb} role ${role} login nosuperuser nocreatedb nocreaterole password '${password}'`);
  } finally {
    await sql.end({ timeout: 5 });
  }
  return withRole(adminUrl, { role, password });
}

function withRole(url: string, { role, password }: { role: string; password: string }): string {
  const own = new URL(url);
  Object.assign(own, { username: role, password });
  return own.href;
}

/** The role of a database's url, if it names one. */
export function findRole(url: string): string | undefined {
  const name = decodeURIComponent(new URL(url).username);
  return name === "" ? undefined : name;
}
