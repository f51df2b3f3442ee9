import type { RawSql } from "../../db/client.ts";

/** The beginning of the statement that commits to the turn log. */
export const LOG_COMMIT = "with head as";
/** The beginning of the statement that reads a turn's engine and writes the turn's row. */
export const TURN_BEGIN = "with engine as";

/** The client, but `answer` replaces the statements that begin with `begin`. */
export function interceptStatements(
  raw: RawSql,
  begin: string,
  answer: (send: () => Promise<unknown>) => Promise<unknown>,
): RawSql {
  const apply: ProxyHandler<RawSql>["apply"] = (target, _this, args) => {
    const send = () => Reflect.apply(target, undefined, args) as Promise<unknown>;
    return String((args as unknown[][])[0]?.[0])
      .trimStart()
      .startsWith(begin)
      ? answer(send)
      : send();
  };
  return new Proxy(raw, { apply });
}
