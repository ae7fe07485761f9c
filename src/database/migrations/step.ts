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
  /**
   * The oldest version whose code may go on with the tables as this step leaves them: nodes of that package work
   * beside newer ones. Default: this step's own, which stops older nodes. From step 6 on.
   */
  minReader?: number;
  statements(tables: Tables): string[];
}
