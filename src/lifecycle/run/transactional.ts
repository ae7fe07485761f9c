import type { EntityManager } from 'typeorm';
import { BildadConfigError, RunNotActiveError } from '../../job/errors.js';
import type { TransactionalSettings } from '../../options/job-options.js';
import { storableOutput } from '../../job/storable-output.js';
import type { JobProcess } from './job-process.js';
import { within } from '../../database/transactions/current-transaction.js';
import { extendLease, finishInTransaction } from '../finish/finish.sql.js';
import { JobTransaction } from '../../database/transactions/job-transaction.js';
import type { ExtensionPoints } from '../extension-points.js';
import type { LateRunRows } from './late-run-rows.js';
import type { Store } from '../../database/store.js';

/** Beyond a job's timeout, so that the node's own ways to stop it come first. */
const MARGIN_MS = 5_000;

/** Handlers whose writes are committed together with the end of their run. */
export class JobTransactions {
  constructor(
    private readonly store: Store,
    private readonly lateRows: Pick<LateRunRows, 'ensureWritten'>,
    private readonly graceMs: number,
    private readonly extensionPoints: ExtensionPoints,
    /** The id that this node has now. */
    private readonly nodeId: () => string,
  ) {}

  /** The same for runs that were claimed by another one: that of the node whose jobs this process hosts. */
  claimedBy(nodeId: string): JobTransactions {
    const { store, lateRows, graceMs, extensionPoints } = this;
    return new JobTransactions(store, lateRows, graceMs, extensionPoints, () => nodeId);
  }

  /**
   * Calls the handler in a transaction, which is committed with the run's end if it returns and nobody has ended the run
   * or told it to stop; else rolled back. `process.written` says what is known of the end.
   * @returns what the handler returned, committed
   * @throws what the handler throws, RunNotActiveError, BildadConfigError where the handler has ended it itself, what the database says: all of it is rolled back then, if the
   *   process does not say that nobody knows
   */
  async around(
    process: JobProcess,
    { isolation: level }: TransactionalSettings,
    call: (manager: EntityManager) => unknown,
  ): Promise<unknown> {
    const nodeId = this.nodeId();
    const { jobRunId, timeoutMs } = process.run;
    const leftMs = timeoutMs - process.ageMs + this.graceMs + MARGIN_MS;
    await this.lateRows.ensureWritten([process.run]);
    if (level !== 'READ COMMITTED') await this.hold(process, nodeId, leftMs);
    const transaction = await this.opened(process, {
      jobRunId,
      level,
      statementMs: leftMs,
      idleMs: leftMs,
    });
    const watched = this.stopInTime(process, transaction);
    try {
      const { manager } = transaction;
      const output = await within(this.store, manager, () => call(manager));
      await this.commit(process, transaction, nodeId, output);
      return output;
    } catch (error) {
      await transaction.rollback(this.store.db.queryTimeoutMs);
      throw error;
    } finally {
      watched();
    }
  }

  /** For a transaction of the handler's own. @throws RunNotActiveError */
  async complete(process: JobProcess, manager: EntityManager, output: unknown): Promise<void> {
    if (!manager?.queryRunner?.isTransactionActive)
      throw new BildadConfigError(
        'manager',
        `must be the EntityManager of an open transaction, not ${manager?.queryRunner ? 'one without a transaction' : typeof manager}`,
        { where: 'job.complete()' },
      );
    await this.lateRows.ensureWritten([process.run]);
    const end = this.endOf(process, this.nodeId(), output);
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
    // A shutdown waits for what is as good as done.
    if (process.toldWhy?.kind !== 'interrupted') process.throwIfStopping();
    const end = this.endOf(process, nodeId, output);
    const { manager } = transaction;
    const { db, tables } = this.store;
    const idleMs = db.queryTimeoutMs;
    const hooks = this.extensionPoints.onFinish.active;
    const fate = await transaction.inTime(idleMs, () =>
      finishInTransaction(manager, tables, end, { marked: true, idleMs, hooks }),
    );
    if (!fate) {
      // A failure like any other: were it told as a run that was taken away, it would be tried again for ever.
      if (!(await transaction.lasts(idleMs)))
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

  private endOf({ run }: JobProcess, nodeId: string, output: unknown) {
    const { jobRunId, jobQueueEntryId } = run;
    const text = storableOutput(output);
    return { jobRunId, jobQueueEntryId, nodeId, output: text };
  }

  private async hold({ run }: JobProcess, nodeId: string, forMs: number): Promise<void> {
    const { db, tables } = this.store;
    const { jobRunId } = run;
    if (!(await extendLease(db, tables, { jobRunId, nodeId, forMs })))
      throw new RunNotActiveError(jobRunId);
  }

  /** Not waited for by a process that is told to stop: the pool may have no connection for long. */
  private opened(
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

  /** What cannot be committed any more holds no locks for longer. @returns how to let it be */
  private stopInTime(process: JobProcess, transaction: JobTransaction): () => void {
    const { signal } = process;
    const stop = () => {
      if (process.toldWhy?.kind !== 'interrupted') transaction.cancel();
    };
    signal.addEventListener('abort', stop, { once: true });
    // Given up by then, where the transaction is not over.
    process.decided.listen(() => transaction.destroy());
    return () => signal.removeEventListener('abort', stop);
  }
}
