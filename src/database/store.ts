import type { DataSource } from 'typeorm';
import type { EnginePool } from './connection/engine-pool.js';
import type { Tables } from './tables.js';

/** Access to the tables of one engine. */
export interface Store {
  /** The host's DataSource: entities, subscribers, transactions of the host. */
  dataSource: DataSource;
  /** The engine's own connections, for all its statements. */
  db: EnginePool;
  tables: Tables;
}
