import type { EntityManager } from 'typeorm';
import type { TestEngine } from './engines.js';

const ENQUEUING = [
  'enqueueJob',
  'enqueueJobs',
  'retryJob',
  'retryJobs',
] as const;
type AnyCall = (...args: unknown[]) => Promise<unknown>;

const isActive = (manager: EntityManager | null | undefined) =>
  manager?.queryRunner?.isTransactionActive === true;

/**
 * Has what was enqueued run before the call resolves, or the commit of the transaction that it is part of.
 * @param settle runs what is due @returns how to let it be
 */
export function runInline(
  engine: TestEngine,
  settle: () => Promise<void>,
  inTransaction: { readonly active: boolean; run<T>(work: () => T): T },
): () => void {
  const { service, dataSource, currentManager } = engine;
  const calls = service as unknown as Record<string, AnyCall>;
  // From the first one on each commit is looked behind: whose it was, nobody says.
  let uncommitted = false;
  const waits = (manager: EntityManager | null | undefined) =>
    manager === undefined
      ? inTransaction.active || isActive(currentManager?.())
      : isActive(manager);
  for (const name of ENQUEUING) {
    const call = calls[name]!.bind(service);
    calls[name] = async (...args) => {
      const result = await call(...args);
      // A context may have one, too.
      const options = args[name.startsWith('enqueue') ? 2 : 1];
      const { manager } = (options ?? {}) as { manager?: EntityManager };
      if (waits(manager)) uncommitted = true;
      else await settle();
      return result;
    };
  }
  const transaction = calls['transaction']!.bind(service);
  calls['transaction'] = (work) =>
    transaction((manager: EntityManager) =>
      inTransaction.run(() =>
        (work as (manager: EntityManager) => unknown)(manager),
      ),
    );
  // TypeORM waits for it before the transaction's own call resolves.
  const subscriber = {
    afterTransactionCommit: async ({
      queryRunner,
    }: {
      queryRunner: { isTransactionActive: boolean };
    }) => {
      if (uncommitted && !queryRunner.isTransactionActive) await settle();
    },
  };
  dataSource.subscribers.push(subscriber);
  return () => {
    for (const name of [...ENQUEUING, 'transaction']) delete calls[name];
    const at = dataSource.subscribers.indexOf(subscriber);
    if (at >= 0) dataSource.subscribers.splice(at, 1);
  };
}
