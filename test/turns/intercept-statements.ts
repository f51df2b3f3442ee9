import type { RawSql } from "../../db/client.ts";

/** How the statement begins that writes what turns have to their log. */
export const LOG_COMMIT = "with head as";

/** A client as it is, but for the statements that begin so. */
export function interceptStatements(
  raw: RawSql,
  begin: string,
  answer: (ask: () => Promise<unknown>) => Promise<unknown>,
): RawSql {
  const apply: ProxyHandler<RawSql>["apply"] = (target, _this, args) => {
    const ask = () => Reflect.apply(target, undefined, args) as Promise<unknown>;
    return String((args as unknown[][])[0]?.[0])
      .trimStart()
      .startsWith(begin)
      ? answer(ask)
      : ask();
  };
  return new Proxy(raw, { apply });
}
