import type { DataSource, EntityManager, QueryRunner } from 'typeorm';
import type { JobIsolationLevel } from '../../options/job-options.js';
import { cancelStatement, destroyConnection, type PgClient } from '../connection/driver.js';
import { rows } from '../tables.js';

const CANCEL_MS = 1_000;
/** PostgreSQL's timeouts are 32-bit integers. */
const MAX_MS = 2 ** 31 - 1;

export interface JobTransactionOptions {
  jobRunId: string;
  level: JobIsolationLevel;
  /** The server's timeouts for a statement and for an idle session: they end the transaction of a handler that hangs. */
  statementMs: number;
  idleMs: number;
}

const milliseconds = (ms: number) => Math.ceil(Math.min(Math.max(ms, 1), MAX_MS));

/** A custom setting that lasts exactly as long as the transaction. */
export const MARK = 'bildad.run';

const settings = ({ jobRunId, level, statementMs, idleMs }: JobTransactionOptions) =>
  `SET LOCAL transaction_isolation = '${level.toLowerCase()}'; SET LOCAL statement_timeout = ${milliseconds(statementMs)};
   SET LOCAL idle_in_transaction_session_timeout = ${milliseconds(idleMs)}; SET LOCAL ${MARK} = '${BigInt(jobRunId)}'`;

/**
 * A handler's transaction, on a connection of the host's DataSource that nothing else uses meanwhile.
 * It ends in one of two ways. It is committed or rolled back, and the connection returns to its pool.
 * Or, after a cancel, an error or a timeout, the connection is destroyed.
 */
export class JobTransaction {
  private cancelled = false;
  private committing = false;
  private closed = false;

  private constructor(
    private readonly runner: QueryRunner,
    private readonly client: PgClient,
  ) {}

  /** Waits for a free connection of the pool. */
  static async open(
    { dataSource }: { dataSource: DataSource },
    options: JobTransactionOptions,
  ): Promise<JobTransaction> {
    const runner = dataSource.createQueryRunner();
    let transaction: JobTransaction | undefined;
    try {
      const client = (await runner.connect()) as PgClient;
      transaction = new JobTransaction(runner, client);
      await runner.startTransaction();
      await runner.query(settings(options));
      return transaction;
    } catch (error) {
      if (transaction) transaction.destroy();
      else await runner.release();
      throw error;
    }
  }

  get manager(): EntityManager {
    return this.runner.manager;
  }

  /** Cancels its statement on the server, so that it can only be rolled back. No effect while it is being committed. */
  cancel(): void {
    if (this.closed || this.committing) return;
    this.cancelled = true;
    void cancelStatement(this.client, CANCEL_MS);
  }

  /** @throws if it may or may not have been committed */
  async commit(withinMs: number): Promise<void> {
    if (this.cancelled) throw new Error('the transaction was cancelled');
    this.committing = true;
    await this.end(withinMs, () => this.runner.commitTransaction());
  }

  /** Never rejects. */
  async rollback(withinMs: number): Promise<void> {
    // A cancel request that arrives late would hit the next user of the connection.
    if (this.cancelled) return this.destroy();
    await this.end(withinMs, () => this.runner.rollbackTransaction()).catch(() => undefined);
  }

  /** Whether the handler's transaction is still open, and has not been replaced by a later one. */
  async isStillOpen(withinMs: number): Promise<boolean> {
    const [row] = await this.destroyIfLate(withinMs, () =>
      rows<{ marked: boolean }>(
        this.runner,
        `SELECT coalesce(current_setting('${MARK}', true), '') <> '' AS marked`,
      ),
    );
    return row!.marked;
  }

  /** Ends the connection at once. Safe after the end. */
  destroy(): void {
    if (this.closed) return;
    this.closed = true;
    // When the connection has ended, the runner returns it to the pool as broken.
    this.client.on('end', () => void this.runner.release());
    void cancelStatement(this.client, CANCEL_MS).then(() => destroyConnection(this.client));
  }

  /** Destroys the connection if `work` is not done in time. */
  async destroyIfLate<T>(withinMs: number, work: () => Promise<T>): Promise<T> {
    if (this.closed) throw new Error('the connection was destroyed');
    const late = setTimeout(() => this.destroy(), withinMs);
    try {
      return await work();
    } finally {
      clearTimeout(late);
    }
  }

  private async end(withinMs: number, finish: () => Promise<void>): Promise<void> {
    try {
      await this.destroyIfLate(withinMs, finish);
      // Only a nested transaction has ended, which the handler left open.
      if (this.runner.isTransactionActive) throw new Error('a nested transaction was left open');
    } catch (error) {
      // A subscriber of the host that throws after the commit does not undo it.
      if (this.runner.isTransactionActive) {
        this.destroy();
        throw error;
      }
    }
    if (this.closed) return;
    this.closed = true;
    await this.runner.release();
  }
}
