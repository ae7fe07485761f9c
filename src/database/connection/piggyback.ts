import type { QueryRunner } from 'typeorm';
import type { Queryable } from '../tables.js';

/** A statement that is sent right behind another one, and does not wait for its answer. */
export interface Following {
  sql: string;
  parameters: unknown[];
  /** It was answered, or will not be. */
  settled: (error?: unknown) => void;
}

/** As much of a QueryRunner as `DataSource.query` takes. */
export const asRunner = (query: Queryable['query']) =>
  ({ isReleased: false, query }) as unknown as QueryRunner;
