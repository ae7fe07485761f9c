import pg from 'pg';
import {
  openConnection,
  type OwnClient,
  type OwnConnection,
} from './own-connection.js';

/** A connection made with `pg` itself, where there is no DataSource. */
export function connectWith(
  options: object,
  timeoutMs: number,
): Promise<OwnConnection> {
  const Client = pg.Client as unknown as new (options: object) => OwnClient;
  return openConnection(Client, options, timeoutMs);
}
