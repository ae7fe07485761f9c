import type { DataSource } from 'typeorm';
import type { EnginePool } from './connection/engine-pool.js';
import type { Tables } from './tables.js';

/** Where the verbs of a job's life find its rows. */
export interface Store {
  /** The host's: entities, subscribers, its own transactions. */
  dataSource: DataSource;
  /** The engine's own connections, which all its statements go over. */
  db: EnginePool;
  tables: Tables;
}
