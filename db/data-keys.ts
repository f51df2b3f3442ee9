import type { RawSql } from "./client.ts";
import type { dataKeys } from "./key-tables.ts";

export type DataKeyRow = typeof dataKeys.$inferSelect;

const interval = (raw: RawSql, ms: number) => raw`make_interval(secs => ${ms / 1000}::float8)`;

/** The hour of a turn's start, which Postgres has written in UTC, as in the name of the turn's partition. */
export function toTurnHour(startedAt: string): string {
  return `${startedAt.slice(0, 4)}${startedAt.slice(5, 7)}${startedAt.slice(8, 10)}${startedAt.slice(11, 13)}`;
}

/** A key that the table has already stays as it is. */
export async function insertDataKeys(raw: RawSql, rows: readonly DataKeyRow[]): Promise<void> {
  await raw`
    insert into data_keys (id, hour, sealed)
    select * from unnest(
      ${rows.map(({ id }) => id)}::uuid[], ${rows.map(({ hour }) => hour)}::text[],
      ${rows.map(({ sealed }) => sealed)}::text[])
    on conflict (id) do nothing`;
}

export async function findDataKey(raw: RawSql, id: string): Promise<DataKeyRow | undefined> {
  const [row] = await raw<DataKeyRow[]>`select id, hour, sealed from data_keys where id = ${id}`;
  return row;
}

/** Those of the hours whose turns are gone from the log and cannot write again. */
export async function listRetiredHours(
  raw: RawSql,
  hours: readonly string[],
  retentionMs: number,
): Promise<string[]> {
  const rows = await raw<{ hour: string }[]>`
    select hour from unnest(${[...hours]}::text[]) as hour
    where is_turn_hour_retired(hour, ${interval(raw, retentionMs)})`;
  return rows.map(({ hour }) => hour);
}

/** Removes the data keys of retired hours from the table and from its file. Returns their number. */
export async function destroyDataKeys(raw: RawSql, retentionMs: number): Promise<number> {
  const [row] = await raw<{ destroyed: number }[]>`
    select destroy_data_keys(${interval(raw, retentionMs)})::float8 as destroyed`;
  return row?.destroyed ?? 0;
}

const isOutdated = (raw: RawSql, firstMasterKeyId: string) =>
  raw`split_part(sealed, '.', 2) <> ${firstMasterKeyId}`;

/** The next keys that another master key than this one has sealed, in order of their ids. */
export async function listDataKeysToReseal(
  raw: RawSql,
  firstMasterKeyId: string,
  page: { afterId: string; limit: number },
): Promise<DataKeyRow[]> {
  return raw<DataKeyRow[]>`
    select id, hour, sealed from data_keys
    where ${isOutdated(raw, firstMasterKeyId)} and id > ${page.afterId} order by id limit ${page.limit}`;
}

/** How many keys another master key than this one has sealed. */
export async function countDataKeysToReseal(raw: RawSql, firstMasterKeyId: string): Promise<number> {
  const [row] = await raw<{ count: number }[]>`
    select count(*)::float8 as count from data_keys where ${isOutdated(raw, firstMasterKeyId)}`;
  return row?.count ?? 0;
}

/** Replaces the sealed text of a key, if it is still the one that was read. */
export async function replaceSealedDataKey(
  raw: RawSql,
  { id, sealed }: DataKeyRow,
  newSealed: string,
): Promise<boolean> {
  const result =
    await raw`update data_keys set sealed = ${newSealed} where id = ${id} and sealed = ${sealed}`;
  return result.count > 0;
}
