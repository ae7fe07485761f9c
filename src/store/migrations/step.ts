import type { Tables } from '../tables.js';

/**
 * One forward-only step. Steps are never changed once released. A step on a busy table must not hold
 * a heavy lock for long: it adds nullable columns, NOT VALID constraints and the like; `lock_timeout`
 * makes it give way to running work and try again.
 */
export interface MigrationStep {
  version: number;
  name: string;
  /** Milliseconds since 1970: TypeORM orders a host's migrations by it. */
  timestamp: number;
  statements(tables: Tables): string[];
}
