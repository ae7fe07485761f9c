import type { EntityManager, QueryRunner } from 'typeorm';

const turns = new WeakMap<QueryRunner, Promise<unknown>>();

/**
 * One after the other in a transaction: two savepoints at once would be one inside of the other, and what one of them
 * undoes would take along what the other one did.
 */
export function inTurn<T>(
  { queryRunner }: EntityManager,
  work: () => Promise<T>,
): Promise<T> {
  if (!queryRunner) return work();
  const before = turns.get(queryRunner) ?? Promise.resolve();
  const done = before.then(work, work);
  turns.set(
    queryRunner,
    done.catch(() => undefined),
  );
  return done;
}

/** At once. */
export const outOfTurn: typeof inTurn = (_manager, work) => work();
