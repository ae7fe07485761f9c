import type { PgClient } from './connection/driver.js';
import { rows, type Queryable, type Tables } from './tables.js';

/** Apart from what wakes nodes and tells of ends: there may be much of it. */
const channelOf = ({ schema }: Tables) => `nestjs_bildad_events:${schema}`;
/** PostgreSQL takes 8,000 bytes, less one. */
export const MOST_NEWS_BYTES = 7_900;

/** One statement, and one commit, for all of them. It writes nothing, and waits for no disk. */
export async function notifyNews(
  db: Queryable,
  tables: Tables,
  payloads: string[],
): Promise<void> {
  await rows(
    db,
    `SELECT set_config('synchronous_commit', 'off', true), count(pg_notify($1, payload)) FROM unnest($2::text[]) AS payload`,
    [channelOf(tables), payloads],
  );
}

export async function listenToNews(
  client: PgClient,
  tables: Tables,
): Promise<void> {
  await client.query(`LISTEN "${channelOf(tables)}"`);
}

export const isOfNews = (tables: Tables, channel: string | undefined) =>
  channel === channelOf(tables);
