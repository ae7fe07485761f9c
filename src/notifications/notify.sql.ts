import type { DataSource } from 'typeorm';
import {
  CONNECT_MS,
  driverOf,
  mergeOptions,
  reliableOptions,
  type PgClient,
} from '../database/connection/driver.js';
import { rows, type Queryable, type Tables } from '../database/tables.js';

/** All engines of a schema share one channel; the topic is part of the payload. */
const channelOf = ({ schema }: Tables) => `nestjs_bildad:${schema}`;

/**
 * Sends notifications in a transaction of its own: in the transaction of an insert or an end, NOTIFY would serialize the
 * commits (5,957 enqueues a second became 2,450). It writes nothing, so it does not wait for the disk.
 */
export async function notifyAll(db: Queryable, tables: Tables, payloads: string[]): Promise<void> {
  const { sql, parameters } = notifyStatement(tables, payloads);
  await rows(db, sql, parameters);
}

export const notifyStatement = (tables: Tables, payloads: string[]) => ({
  sql: `SELECT set_config('synchronous_commit', 'off', true), count(pg_notify($1, payload)) FROM unnest($2::text[]) AS payload`,
  parameters: [channelOf(tables), payloads] as unknown[],
});

/** A dedicated connection with the options of the DataSource's pool. Null if the DataSource has no pool of `pg`. */
export function listeningClient(dataSource: DataSource, queryTimeoutMs: number): PgClient | null {
  const driver = driverOf(dataSource);
  if (!driver) return null;
  const options = reliableOptions(driver.options, Math.min(CONNECT_MS, queryTimeoutMs));
  return new driver.Client(mergeOptions(options, { query_timeout: queryTimeoutMs }));
}

export async function listen(client: PgClient, tables: Tables): Promise<void> {
  await client.query(`LISTEN "${channelOf(tables)}"`);
}

export async function ping(client: PgClient): Promise<void> {
  await client.query('SELECT 1');
}
