import type { EntityManager, QueryRunner } from 'typeorm';
import { Semaphore } from '../../concurrency/semaphore.js';
import type { Queryable } from '../tables.js';

/** An error in `work` undoes its statements, and leaves the transaction around it as it was. */
export async function inSavepoint<T>(transaction: Queryable, work: () => Promise<T>): Promise<T> {
  await transaction.query('SAVEPOINT bildad');
  try {
    const result = await work();
    await transaction.query('RELEASE SAVEPOINT bildad');
    return result;
  } catch (error) {
    await transaction.query('ROLLBACK TO SAVEPOINT bildad');
    throw error;
  }
}

const turns = new WeakMap<QueryRunner, Semaphore>();

/**
 * Runs one task of a transaction at a time. Two savepoints at once would be nested, and rolling back
 * the outer one would undo the work of the inner one.
 */
export function inTurn<T>({ queryRunner }: EntityManager, work: () => Promise<T>): Promise<T> {
  if (!queryRunner) return work();
  let turn = turns.get(queryRunner);
  if (!turn) turns.set(queryRunner, (turn = new Semaphore(1)));
  return turn.run(work);
}

/** Runs the task at once. */
export const runAtOnce: typeof inTurn = (_manager, work) => work();
