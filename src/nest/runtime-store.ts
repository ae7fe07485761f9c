import type { DataSource } from 'typeorm';
import type { JobEvents } from '../model/events.js';
import type { Settings } from '../model/settings.js';
import { EnginePool } from '../store/connection/engine-pool.js';
import { HostPools } from '../store/connection/host-pools.js';
import { tablesOf } from '../store/tables.js';

/** An engine's way to its tables, which tells when the database is away. */
export function createStore(
  dataSource: DataSource,
  schema: string,
  { queryTimeoutMs, connections }: Settings,
  events: JobEvents,
) {
  const db = new EnginePool(dataSource, {
    queryTimeoutMs,
    most: connections,
    lost: (error) => events.emit('database.lost', { error }),
    back: (awayMs) => events.emit('database.back', { awayMs }),
  });
  return {
    store: { dataSource, db, tables: tablesOf(schema) },
    hostPools: new HostPools(dataSource, db),
  };
}
