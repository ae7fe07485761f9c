import type { DataSource } from 'typeorm';
import {
  CONNECT_MS,
  driverOf,
  optionsOver,
  sturdy,
  type PgClient,
} from './connection/driver.js';
import { rows, type Queryable, type Tables } from './tables.js';

const channelOf = ({ schema }: Tables) => `nestjs_bildad:${schema}`;

/**
 * Tells who listens that something is due. A statement, and so a commit, of its own: inside the enqueueing
 * transaction it would make all of them commit one after another (5,957 became 2,450 a second). It writes
 * nothing, so it need not wait for the disk.
 */
export async function notifyDue(
  db: Queryable,
  tables: Tables,
  sender: string,
): Promise<void> {
  const { sql, parameters } = dueNotice(tables, sender);
  await rows(db, sql, parameters);
}

export const dueNotice = (tables: Tables, sender: string) => ({
  sql: `SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)`,
  parameters: [channelOf(tables), sender],
});
const PROBE = 'probe ';

export const isProbe = (payload: string | undefined) =>
  payload?.startsWith(PROBE) ?? false;

/** Tells whoever listens nothing but this token. */
export async function sendProbe(
  db: Queryable,
  tables: Tables,
  token: string,
): Promise<void> {
  await rows(
    db,
    `SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)`,
    [channelOf(tables), PROBE + token],
  );
}

/** A connection of its own, made as the DataSource's pool makes its connections. Null where there is no such pool. */
export function listeningClient(
  dataSource: DataSource,
  queryTimeoutMs: number,
): PgClient | null {
  const driver = driverOf(dataSource);
  if (!driver) return null;
  const options = sturdy(driver.options, Math.min(CONNECT_MS, queryTimeoutMs));
  return new driver.Client(
    optionsOver(options, { query_timeout: queryTimeoutMs }),
  );
}

/** Whether it answers at all. */
export async function probe(client: PgClient): Promise<void> {
  await client.query('SELECT 1');
}

export async function listen(client: PgClient, tables: Tables): Promise<void> {
  await client.query(`LISTEN "${channelOf(tables)}"`);
}
