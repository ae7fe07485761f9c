import type { DataSource } from 'typeorm';
import {
  CONNECT_MS,
  driverOf,
  optionsOver,
  sturdy,
  type PgClient,
} from '../database/connection/driver.js';
import { rows, type Queryable, type Tables } from '../database/tables.js';

/**
 * `due` wakes nodes: those of an older version look for work at each of its notices. What ends and changes of jobs are told
 * of, and events, of which there may be many, have channels of their own.
 */
export const channelsOf = ({ schema }: Tables) => ({
  due: `nestjs_bildad:${schema}`,
  ends: `nestjs_bildad_ends:${schema}`,
  events: `nestjs_bildad_events:${schema}`,
});

/**
 * One statement, and so one commit, of its own for all of them: in the transaction of an end, or of an insert, it would
 * make all of these commit one after another. It writes nothing, and waits for no disk.
 */
export async function notifyAll(db: Queryable, channel: string, payloads: string[]): Promise<void> {
  await rows(
    db,
    `SELECT set_config('synchronous_commit', 'off', true), count(pg_notify($1, payload)) FROM unnest($2::text[]) AS payload`,
    [channel, payloads],
  );
}

/**
 * Tells who listens that something is due. A statement, and so a commit, of its own: inside the enqueueing
 * transaction it would make all of them commit one after another (5,957 became 2,450 a second). It writes
 * nothing, so it need not wait for the disk.
 */
export async function notifyDue(db: Queryable, tables: Tables, sender: string): Promise<void> {
  const { sql, parameters } = dueNotice(tables, sender);
  await rows(db, sql, parameters);
}

export const dueNotice = (tables: Tables, sender: string) => ({
  sql: `SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)`,
  parameters: [channelsOf(tables).due, sender],
});
const PROBE = 'probe ';

export const isProbe = (payload: string | undefined) => payload?.startsWith(PROBE) ?? false;

/** Tells whoever listens nothing but this token. */
export async function sendProbe(db: Queryable, tables: Tables, token: string): Promise<void> {
  await notifyAll(db, channelsOf(tables).due, [PROBE + token]);
}

/** A connection of its own, made as the DataSource's pool makes its connections. Null where there is no such pool. */
export function listeningClient(dataSource: DataSource, queryTimeoutMs: number): PgClient | null {
  const driver = driverOf(dataSource);
  if (!driver) return null;
  const options = sturdy(driver.options, Math.min(CONNECT_MS, queryTimeoutMs));
  return new driver.Client(optionsOver(options, { query_timeout: queryTimeoutMs }));
}

/** Whether it answers at all. */
export async function probe(client: PgClient): Promise<void> {
  await client.query('SELECT 1');
}

/** To all that other nodes tell. */
export async function listen(client: PgClient, tables: Tables): Promise<void> {
  for (const channel of Object.values(channelsOf(tables)))
    await client.query(`LISTEN "${channel}"`);
}
