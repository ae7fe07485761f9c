import pg from 'pg';
import type { ClientClass, PgOptions } from './driver.js';
import { openConnection, type OwnConnection } from './dedicated-connection.js';

/** A connection made with `pg` itself, where there is no DataSource. */
export function connectWith(options: PgOptions, timeoutMs: number): Promise<OwnConnection> {
  return openConnection(pg.Client as unknown as ClientClass, options, timeoutMs);
}
