import { rows, type Queryable, type Tables } from './tables.js';

/** Resolves when the database answers, and has the tables. It reads one row, whatever is queued. */
export async function answer(db: Queryable, { configs }: Tables): Promise<void> {
  await rows(db, `SELECT FROM ${configs} LIMIT 1`);
}
