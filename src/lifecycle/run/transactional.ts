import type { EntityManager } from 'typeorm';
import { BildadConfigError, RunNotActiveError } from '../../job/errors.js';
import type { TransactionalSettings } from '../../options/job-options.js';
import { storableOutput } from '../../job/storable-output.js';
import type { JobProcess } from './job-process.js';
import { runInTransaction } from '../../database/transactions/current-transaction.js';
import { extendLease, finishInTransaction } from '../finish/finish-runs.sql.js';
import { createLockRetry } from '../../database/lock-retry.js';
import { JobTransaction } from '../../database/transactions/job-transaction.js';
import type { ExtensionPoints } from '../extension-points.js';
import type { LateRunRows } from './late-run-rows.js';
import type { Store } from '../../database/store.js';

/** Added to a job's timeout, so that the node stops the job before the server does. */
const MARGIN_MS = 5_000;

/** Runs handlers in a transaction that is committed together with the end of the run. */
export class JobTransactions {
  private readonly lockRetry;

  constructor(
    private readonly store: Store,
    private readonly lateRows: Pick<LateRunRows, 'ensureWritten'>,
    private readonly graceMs: number,
    private readonly extensionPoints: ExtensionPoints,
    /** The current id of this node. */
    private readonly nodeId: () => string,
  ) {
    this.lockRetry = createLockRetry(store.db);
  }

  /** For a host process: the runs were claimed by the node that it works for. */
  forNode(nodeId: string): JobTransactions {
    const { store, lateRows, graceMs, extensionPoints } = this;
    return new JobTransactions(store, lateRows, graceMs, extensionPoints, () => nodeId);
  }

  /**
   * Calls the handler in a transaction. If the handler returns while the run is RUNNING and must not stop, the transaction
   * is committed with the end of the run. Otherwise it is rolled back. `process.written` holds what is known of the end.
   * @returns the result of the handler, committed
   * @throws the handler's error; RunNotActiveError; BildadConfigError if the handler ended the transaction; a database error.
   *   Everything is rolled back then, unless `process.written` says that the commit may have landed
   */
  async run(
    process: JobProcess,
    { isolation: level }: TransactionalSettings,
    call: (manager: EntityManager) => unknown,
  ): Promise<unknown> {
    const nodeId = this.nodeId();
    const { jobRunId, timeoutMs } = process.run;
    const leftMs = timeoutMs - process.ageMs + this.graceMs + MARGIN_MS;
    await this.lateRows.ensureWritten([process.run]);
    if (level !== 'READ COMMITTED') await this.extendLease(process, nodeId, leftMs);
    const transaction = await this.open(process, {
      jobRunId,
      level,
      statementMs: leftMs,
      idleMs: leftMs,
    });
    const stopWatching = this.cancelWhenStopped(process, transaction);
    try {
      const { manager } = transaction;
      const output = await runInTransaction(this.store, manager, () => call(manager));
      await this.commit(process, transaction, nodeId, output);
      return output;
    } catch (error) {
      await transaction.rollback(this.store.db.queryTimeoutMs);
      throw error;
    } finally {
      stopWatching();
    }
  }

  /** Ends the run in a transaction that the handler opened itself. @throws RunNotActiveError */
  async complete(process: JobProcess, manager: EntityManager, output: unknown): Promise<void> {
    if (!manager?.queryRunner?.isTransactionActive)
      throw new BildadConfigError(
        'manager',
        `must be the EntityManager of an open transaction, not ${manager?.queryRunner ? 'one without a transaction' : typeof manager}`,
        { where: 'job.complete()' },
      );
    await this.lateRows.ensureWritten([process.run]);
    const end = this.toCompletedRun(process, this.nodeId(), output);
    const { tables } = this.store;
    const hooks = this.extensionPoints.onFinish.active;
    if (!(await finishInTransaction(manager, tables, end, { marked: false, hooks })))
      throw new RunNotActiveError(process.jobRunId);
    process.written = { output };
  }

  private async commit(
    process: JobProcess,
    transaction: JobTransaction,
    nodeId: string,
    output: unknown,
  ): Promise<void> {
    // A shutdown does not stop a handler that has returned.
    if (process.stopReason?.kind !== 'interrupted') process.throwIfStopping();
    const end = this.toCompletedRun(process, nodeId, output);
    const { manager } = transaction;
    const { db, tables } = this.store;
    const idleMs = db.queryTimeoutMs;
    const hooks = this.extensionPoints.onFinish.active;
    const fate = await transaction.destroyIfLate(idleMs, () =>
      finishInTransaction(manager, tables, end, { marked: true, idleMs, hooks }),
    );
    if (!fate) {
      // An ordinary failure. Reported as a lost run, it would be retried for ever.
      if (!(await transaction.isStillOpen(idleMs)))
        throw new BildadConfigError(
          'job.manager',
          'must not be committed or rolled back by the handler: the engine ends its transaction when the handler returns',
        );
      process.written = { output, fate };
      throw new RunNotActiveError(process.jobRunId);
    }
    process.written = { output };
    await transaction.commit(db.queryTimeoutMs);
    process.written = { output, fate };
  }

  private toCompletedRun({ run }: JobProcess, nodeId: string, output: unknown) {
    const { jobRunId, jobQueueEntryId } = run;
    const text = storableOutput(output);
    return { jobRunId, jobQueueEntryId, nodeId, output: text };
  }

  private async extendLease({ run }: JobProcess, nodeId: string, forMs: number): Promise<void> {
    const { db, tables } = this.store;
    const { jobRunId } = run;
    const isExtended = await this.lockRetry.run(`run ${jobRunId}`, () =>
      extendLease(db, tables, { jobRunId, nodeId, forMs }),
    );
    if (!isExtended) throw new RunNotActiveError(jobRunId);
  }

  /** A process that must stop does not wait for a connection of the pool. */
  private open(
    process: JobProcess,
    options: Parameters<typeof JobTransaction.open>[1],
  ): Promise<JobTransaction> {
    process.throwIfStopping();
    return new Promise((resolve, reject) => {
      const { signal } = process;
      const stop = () => reject(signal.reason as Error);
      signal.addEventListener('abort', stop, { once: true });
      void JobTransaction.open(this.store, options)
        .then((transaction) => {
          if (!signal.aborted) return resolve(transaction);
          return transaction.rollback(this.store.db.queryTimeoutMs);
        }, reject)
        .finally(() => signal.removeEventListener('abort', stop));
    });
  }

  /** A transaction that cannot be committed any more releases its locks. @returns a function that stops watching */
  private cancelWhenStopped(process: JobProcess, transaction: JobTransaction): () => void {
    const { signal } = process;
    const stop = () => {
      if (process.stopReason?.kind !== 'interrupted') transaction.cancel();
    };
    signal.addEventListener('abort', stop, { once: true });
    // If the transaction is still open then, the process was abandoned.
    process.decided.listen(() => transaction.destroy());
    return () => signal.removeEventListener('abort', stop);
  }
}
