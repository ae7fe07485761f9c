import type { DataSource } from 'typeorm';
import { rows, type Queryable, type Tables } from './tables.js';

/** As much of a `pg` client as listening takes. */
export interface ListeningClient {
  connect(): Promise<unknown>;
  end(): Promise<void>;
  query(sql: string): Promise<unknown>;
  on(
    event: 'notification',
    heard: (message: { payload?: string }) => void,
  ): void;
  on(event: 'error' | 'end', gone: (error?: unknown) => void): void;
}

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
  await rows(
    db,
    `SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)`,
    [channelOf(tables), sender],
  );
}

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
): ListeningClient | null {
  const { master: pool } = dataSource.driver as {
    master?: {
      Client?: new (options: object) => ListeningClient;
      options: object;
    };
  };
  return pool?.Client ? new pool.Client(pool.options) : null;
}

/** Whether it answers at all. */
export async function probe(client: ListeningClient): Promise<void> {
  await client.query('SELECT 1');
}

export async function listen(
  client: ListeningClient,
  tables: Tables,
): Promise<void> {
  await client.query(`LISTEN "${channelOf(tables)}"`);
}
