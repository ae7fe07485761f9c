import type { DataSource } from 'typeorm';
import { News } from '../../notifications/cluster-events.js';
import type { JobEvents } from '../../job/events.js';
import type { Settings } from '../../options/settings.js';
import { EnginePool } from '../../database/connection/engine-pool.js';
import { HostPools } from '../../database/connection/host-pools.js';
import { tablesOf } from '../../database/tables.js';

/** An engine's way to its tables, which tells when the database is away, and to the other nodes. */
export function createStore(
  dataSource: DataSource,
  schema: string,
  { name, queryTimeout: queryTimeoutMs, connections, notify }: Settings,
  events: JobEvents,
) {
  const db = new EnginePool(dataSource, {
    queryTimeoutMs,
    most: connections,
    lost: (error) => events.emit('database.lost', { error }),
    back: (awayMs) => events.emit('database.back', { awayMs }),
  });
  const store = { dataSource, db, tables: tablesOf(schema) };
  return {
    store,
    hostPools: new HostPools(dataSource, db),
    news: new News(store, events, name, notify && connections === undefined),
  };
}
