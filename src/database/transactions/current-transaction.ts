import { AsyncLocalStorage } from 'node:async_hooks';
import type { DataSource, EntityManager, QueryRunner } from 'typeorm';
import { BildadConfigError, TransactionOverError } from '../../job/errors.js';
import type { CurrentManager } from '../../options/module-options.js';

/** The transaction that calls join in the async context of `runInTransaction`. */
interface Ambient {
  dataSource: DataSource;
  manager: EntityManager;
  over: boolean;
  /** The enclosing transaction, which may belong to another DataSource. */
  outer: Ambient | undefined;
}

/** Created on first use: on Node 20 a storage in use makes every promise slower. */
let storage: AsyncLocalStorage<Ambient> | undefined;
/** Whether a call may have a transaction to join, of the engine or of the host. */
let inUse = false;
const atStart = AsyncLocalStorage.snapshot();

/** Calls in `work` and in its async calls join this transaction. After `work` has ended, they are refused. */
export async function runInTransaction<T>(
  { dataSource }: { dataSource: DataSource },
  manager: EntityManager,
  work: () => T | Promise<T>,
): Promise<T> {
  inUse = true;
  storage ??= new AsyncLocalStorage();
  const outer = storage.getStore();
  const ambient: Ambient = { dataSource, manager, over: false, outer };
  try {
    return await storage.run(ambient, async () => work());
  } finally {
    ambient.over = true;
  }
}

/** Whether there may be transactions to join. */
export const mayJoinTransaction = () => inUse;

/** Runs the engine's own work outside of the transaction of the call that caused it. */
export const runOutsideTransaction = <T>(work: () => T): T => (inUse ? atStart(work) : work());

/** TypeORM counts the savepoints of a transaction in a private property. */
export const depthOf = (runner: QueryRunner) =>
  (runner as unknown as { transactionDepth?: number }).transactionDepth ?? 1;

/**
 * Detects that a transaction is about to end. A statement that is sent after its ROLLBACK would commit
 * by itself, and TypeORM treats a transaction as active until the ROLLBACK is answered.
 */
class TransactionEnds {
  private static readonly ofDataSource = new WeakMap<DataSource, TransactionEnds>();
  /** The depth of the savepoint or transaction that is ending. */
  private readonly ending = new WeakMap<QueryRunner, number>();
  private watching = false;

  private constructor(private readonly dataSource: DataSource) {}

  /** Engines on one DataSource share its subscriber. */
  static of(dataSource: DataSource): TransactionEnds {
    let ends = this.ofDataSource.get(dataSource);
    if (!ends) this.ofDataSource.set(dataSource, (ends = new TransactionEnds(dataSource)));
    return ends;
  }

  /** @returns a check that throws TransactionOverError once the transaction, or savepoint, is ending */
  guard({ queryRunner: runner }: EntityManager): () => void {
    if (!runner?.isTransactionActive) return () => {};
    this.watch();
    const depth = depthOf(runner);
    return () => {
      const isOver =
        runner.isReleased ||
        !runner.isTransactionActive ||
        depthOf(runner) < depth ||
        (this.ending.get(runner) ?? Infinity) <= depth;
      if (isOver) throw new TransactionOverError();
    };
  }

  /** The subscriber stays as long as the DataSource lives. It refers to no engine. */
  private watch(): void {
    if (this.watching) return;
    this.watching = true;
    const recordEnding = ({ queryRunner }: { queryRunner: QueryRunner }) =>
      void this.ending.set(queryRunner, depthOf(queryRunner));
    const forgetEnding = ({ queryRunner }: { queryRunner: QueryRunner }) =>
      void this.ending.delete(queryRunner);
    this.dataSource.subscribers.push({
      beforeTransactionCommit: recordEnding,
      beforeTransactionRollback: recordEnding,
      afterTransactionCommit: forgetEnding,
      afterTransactionRollback: forgetEnding,
    });
  }
}

/** Finds the transaction that a call without a `manager` joins. */
export class CurrentTransaction {
  private readonly dataSource: DataSource;
  private readonly ends: TransactionEnds;

  constructor(
    { dataSource }: { dataSource: DataSource },
    private readonly currentManager: CurrentManager | undefined,
  ) {
    this.dataSource = dataSource;
    this.ends = TransactionEnds.of(dataSource);
    inUse ||= currentManager !== undefined;
  }

  /** @throws TransactionOverError if that transaction is over; BildadConfigError */
  get manager(): EntityManager | undefined {
    return inUse ? (this.engineManager ?? this.hostManager) : undefined;
  }

  /**
   * @param given the `manager` option of a call; null: no transaction, undefined: the current one
   * @throws as `manager`; BildadConfigError
   */
  resolve(given: EntityManager | null | undefined): EntityManager | undefined {
    if (given === undefined) return this.manager;
    // Without this check, a wrong value would count as no transaction.
    if (given !== null && typeof given.query !== 'function')
      throw new BildadConfigError(
        'manager',
        'must be the EntityManager of a transaction, or null',
        { got: given },
      );
    return given ?? undefined;
  }

  /**
   * @returns a check to call right before a write in it, because a write after a rollback would be
   *   committed. The check throws TransactionOverError.
   */
  guard(manager: EntityManager): () => void {
    const check = this.ends.guard(manager);
    const ambient = storage?.getStore();
    return () => {
      if (ambient?.manager === manager && ambient.over) throw new TransactionOverError();
      check();
    };
  }

  private get engineManager(): EntityManager | undefined {
    for (let ambient = storage?.getStore(); ambient; ambient = ambient.outer) {
      if (ambient.dataSource !== this.dataSource) continue;
      if (ambient.over) throw new TransactionOverError();
      return ambient.manager;
    }
    return undefined;
  }

  /** Helpers of the host return the DataSource's own manager if there is no transaction. */
  private get hostManager(): EntityManager | undefined {
    const manager = this.currentManager?.();
    if (manager && typeof manager.query !== 'function')
      throw new BildadConfigError('currentManager', 'must return an EntityManager or undefined', {
        got: manager,
      });
    if (!manager?.queryRunner?.isTransactionActive) return undefined;
    // TypeORM 1.0 calls it `dataSource` too; older versions have only this name.
    const { connection } = manager as unknown as { connection: DataSource };
    if (connection !== this.dataSource)
      throw new BildadConfigError(
        'currentManager',
        "must return an EntityManager of the engine's own DataSource, not of another one",
      );
    return manager;
  }
}
