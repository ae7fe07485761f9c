import type { DataSource } from 'typeorm';
import type { JobEvents } from '../../job/events.js';
import type { Settings } from '../../options/settings.js';
import { EnginePool } from '../../database/connection/engine-pool.js';
import { HostPools } from '../../database/connection/host-pools.js';
import { tablesOf } from '../../database/tables.js';

/**
 * An engine's access to its tables; it emits events when the database is lost and when it is back.
 */
export function createStore(
  dataSource: DataSource,
  schema: string,
  { queryTimeout: queryTimeoutMs, connections }: Settings,
  events: JobEvents,
) {
  const db = new EnginePool(dataSource, {
    queryTimeoutMs,
    max: connections,
    lost: (error) => events.emit('database.lost', { error }),
    back: (outageMs) => events.emit('database.restored', { outageMs }),
  });
  const store = { dataSource, db, tables: tablesOf(schema) };
  return {
    store,
    hostPools: new HostPools(dataSource),
  };
}
