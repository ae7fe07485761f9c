import { AsyncLocalStorage } from 'node:async_hooks';
import type { DataSource, EntityManager, QueryRunner } from 'typeorm';
import type { TestEngine } from './engines.js';

const ENQUEUING = ['enqueueJob', 'enqueueJobs', 'retryJob', 'retryJobs'] as const;
type AnyCall = (...args: unknown[]) => Promise<unknown>;

const isActive = (manager: EntityManager | null | undefined) =>
  manager?.queryRunner?.isTransactionActive === true;

/** Calls inside an engine's `transaction`, until it ends. */
export class TransactionCalls {
  private readonly storage = new AsyncLocalStorage<readonly DataSource[]>();

  run<T>(dataSource: DataSource, work: () => T): T {
    return this.storage.run([...this.all, dataSource], work);
  }

  /** Whether the call is inside a transaction of this DataSource. */
  includes(dataSource: DataSource): boolean {
    return this.all.includes(dataSource);
  }

  private get all() {
    return this.storage.getStore() ?? [];
  }
}

/**
 * Runs enqueued jobs before the call that enqueued them, or the commit of its transaction, resolves.
 * @param settle runs due jobs @returns a function that ends this
 */
export function runInline(
  engine: TestEngine,
  settle: () => Promise<void>,
  inTransaction: TransactionCalls,
): () => void {
  const { service, dataSource, currentManager } = engine;
  const calls = service as unknown as Record<string, AnyCall>;
  // From the first enqueue in a transaction on, each commit is followed by a check, because commits do not name their jobs.
  let uncommitted = false;
  const waits = (manager: EntityManager | null | undefined) =>
    manager === undefined
      ? inTransaction.includes(dataSource) || isActive(currentManager?.())
      : isActive(manager);
  for (const name of ENQUEUING) {
    const call = calls[name]!.bind(service);
    calls[name] = async (...args) => {
      const result = await call(...args);
      // A context may have a `manager` property too.
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
      inTransaction.run(dataSource, () => (work as (manager: EntityManager) => unknown)(manager)),
    );
  // TypeORM waits for the listener and the release before the call of the transaction resolves.
  const subscriber = {
    afterTransactionCommit: async ({ queryRunner }: { queryRunner: QueryRunner }) => {
      if (!uncommitted || queryRunner.isTransactionActive) return;
      if (engine.pools.hasRoom) await settle();
      else settleAtRelease(queryRunner, settle);
    },
  };
  dataSource.subscribers.push(subscriber);
  return () => {
    for (const name of [...ENQUEUING, 'transaction']) delete calls[name];
    const at = dataSource.subscribers.indexOf(subscriber);
    if (at >= 0) dataSource.subscribers.splice(at, 1);
  };
}

/** Runs the jobs after the release, because they need connections and concurrent commits may hold all of them. */
function settleAtRelease(runner: QueryRunner, settle: () => Promise<void>) {
  if (Object.hasOwn(runner, 'release')) return;
  runner.release = async () => {
    delete (runner as Partial<QueryRunner>).release;
    await runner.release();
    await settle();
  };
}
