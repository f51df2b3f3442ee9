import { once } from "node:events";
import type { RawSql } from "../../db/client.ts";

/** The tables of a database as pg_dump writes them: sorted by name, each partition with the COPY of its own rows. */
export async function toDumpText(raw: RawSql, options: { order?: string } = {}): Promise<string> {
  const tables = await raw<{ name: string; columns: string }[]>`
    select relname as name, (
      select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
      where attrelid = pg_class.oid and attnum > 0 and not attisdropped) as columns
    from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace
      and (relname like 'audit%' or relname in ('products', 'instance'))
    order by relname`;
  const parts = [
    "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\nCREATE TABLE public.x ();\n",
  ];
  for (const { name, columns } of tables) {
    parts.push(`\nCOPY public.${name} (${columns}) FROM stdin;\n`);
    const order = name.startsWith("audit_log") ? (options.order ?? "") : "";
    const copied = await raw.unsafe(`copy (select ${columns} from ${name} ${order}) to stdout`).readable();
    copied.on("data", (chunk: Buffer) => parts.push(chunk.toString()));
    await once(copied, "end");
    parts.push("\\.\n\n");
  }
  return parts.join("");
}
