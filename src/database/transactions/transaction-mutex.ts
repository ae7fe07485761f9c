import type { EntityManager, QueryRunner } from 'typeorm';
import { Semaphore } from '../../concurrency/semaphore.js';

const turns = new WeakMap<QueryRunner, Semaphore>();

/**
 * One after the other in a transaction: two savepoints at once would be one inside of the other, and what one of them
 * undoes would take along what the other one did.
 */
export function inTurn<T>({ queryRunner }: EntityManager, work: () => Promise<T>): Promise<T> {
  if (!queryRunner) return work();
  let own = turns.get(queryRunner);
  if (!own) turns.set(queryRunner, (own = new Semaphore(1)));
  return own.run(work);
}

/** At once. */
export const outOfTurn: typeof inTurn = (_manager, work) => work();
