import type { DataSource, EntityManager, QueryRunner } from 'typeorm';
import type { JobIsolationLevel } from '../../options/job-options.js';
import { cancelStatement, destroyConnection, type PgClient } from '../connection/driver.js';
import { rows } from '../tables.js';

const CANCEL_MS = 1_000;
/** PostgreSQL's timeouts are 32 bit integers. */
const LONGEST_MS = 2 ** 31 - 1;

export interface JobTransactionOptions {
  jobRunId: string;
  level: JobIsolationLevel;
  /** What a statement may take, and for how long the session may be idle: the server's own way out of a handler that hangs. */
  statementMs: number;
  idleMs: number;
}

const milliseconds = (ms: number) => Math.ceil(Math.min(Math.max(ms, 1), LONGEST_MS));

/** A custom setting that lasts as long as the transaction: whoever ends that, ends this. */
export const MARK = 'bildad.run';

const settings = ({ jobRunId, level, statementMs, idleMs }: JobTransactionOptions) =>
  `SET LOCAL transaction_isolation = '${level.toLowerCase()}'; SET LOCAL statement_timeout = ${milliseconds(statementMs)};
   SET LOCAL idle_in_transaction_session_timeout = ${milliseconds(idleMs)}; SET LOCAL ${MARK} = '${BigInt(jobRunId)}'`;

/**
 * A handler's transaction, on a connection of the host's DataSource that it has for itself. It ends in one of two ways: it
 * is committed or rolled back, and the connection goes back to its pool; or, after a cancel, an error or no answer in
 * time, the connection is destroyed. None is used again half-way.
 */
export class JobTransaction {
  private spoiled = false;
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

  /** Stops what the server does for it, and leaves nothing but a rollback. Not where it is being committed. */
  cancel(): void {
    if (this.closed || this.committing) return;
    this.spoiled = true;
    void cancelStatement(this.client, CANCEL_MS);
  }

  /**
   * @throws when it is not certain to be committed: nobody knows then whether it was
   */
  async commit(withinMs: number): Promise<void> {
    if (this.spoiled) throw new Error('the transaction was cancelled');
    this.committing = true;
    await this.end(withinMs, () => this.runner.commitTransaction());
  }

  /** Never rejects. */
  async rollback(withinMs: number): Promise<void> {
    // A cancel that arrives late would hit whoever has the connection then.
    if (this.spoiled) return this.destroy();
    await this.end(withinMs, () => this.runner.rollbackTransaction()).catch(() => undefined);
  }

  /** Whether it is still the one that the handler was given, and not one that came after. */
  async lasts(withinMs: number): Promise<boolean> {
    const [row] = await this.inTime(withinMs, () =>
      rows<{ marked: boolean }>(
        this.runner,
        `SELECT coalesce(current_setting('${MARK}', true), '') <> '' AS marked`,
      ),
    );
    return row!.marked;
  }

  /** Whatever it is doing. Safe when it has ended. */
  destroy(): void {
    if (this.closed) return;
    this.closed = true;
    // On its end the runner gives it back to the pool as broken.
    this.client.on('end', () => void this.runner.release());
    void cancelStatement(this.client, CANCEL_MS).then(() => destroyConnection(this.client));
  }

  /** The connection counts as dead where `work` is not done in time. */
  async inTime<T>(withinMs: number, work: () => Promise<T>): Promise<T> {
    if (this.closed) throw new Error('the connection was destroyed');
    const late = setTimeout(() => this.destroy(), withinMs);
    try {
      return await work();
    } finally {
      clearTimeout(late);
    }
  }

  private async end(withinMs: number, how: () => Promise<void>): Promise<void> {
    try {
      await this.inTime(withinMs, how);
      // Of a transaction in it that was left open this was the end, and of nothing else.
      if (this.runner.isTransactionActive) throw new Error('a nested transaction was left open');
    } catch (error) {
      // A listener of the host's that throws when it is told of a commit does not undo it.
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
