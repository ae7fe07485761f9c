import type { Tables } from '../tables.js';

/**
 * One forward-only change of the schema. Released steps are never edited. A step on a busy table must not hold a heavy
 * lock for long: it adds nullable columns, NOT VALID constraints and the like. Its `lock_timeout` lets running work go
 * first, and the step is tried again.
 */
export interface MigrationStep {
  version: number;
  name: string;
  /** Milliseconds since 1970: TypeORM orders a host's migrations by it. */
  timestamp: number;
  /**
   * The oldest schema version whose code works with the tables after this step: nodes of that package may run beside
   * newer ones. Default: this step's own version, which stops older nodes.
   */
  minReader?: number;
  statements(tables: Tables): string[];
}
