import { QueryFailedError, type DataSource } from 'typeorm';
import { Semaphore, SemaphoreTimeoutError } from '../../concurrency/semaphore.js';
import type { Queryable } from '../tables.js';
import { Connections } from './connections.js';
import { openConnection } from './dedicated-connection.js';
import {
  asQueryRunner,
  canCancel,
  cancelStatement,
  driverOf,
  type Driver,
  type PgClient,
  type PooledClient,
} from './driver.js';
import { BusyError, ConnectionLostError, isAnswer, ReadOnlyError } from './connection-errors.js';
import { Outage } from './outage.js';
import { Statements } from './statements.js';

/** A busy node has about this many statements in flight. */
const POOL_SIZE = 4;
/** A connection that has planned the engine's functions is worth keeping: planning takes longer than a claim. */
const IDLE_MS = 300_000;
/** Transactions at a time. They leave connections for other statements. */
const TRANSACTIONS = 2;
/** How many query timeouts a transaction waits for its turn. */
const QUERY_TIMEOUTS_IN_LINE = 3;
/** Transactions that wait for code of the host, which may be slow. They have connections of their own. */
const HOST_PACED = { max: 2, min: 0, idleMs: 1_000 };
const CANCEL_MS = 1_000;

export interface EnginePoolOptions {
  /** A statement that takes longer is cancelled. */
  queryTimeoutMs: number;
  /** Most connections. Default: 4. */
  max?: number | undefined;
  /** Called once when the database stops answering. */
  onLost?: (error: Error) => void;
  onRestored?: (outageMs: number) => void;
}

/** A statement that is sent right after another one, on the same connection, without waiting for its answer. */
export interface PiggybackStatement {
  sql: string;
  parameters: unknown[];
  /** Called when it was answered, or will not be. */
  settled: (error?: unknown) => void;
}

export interface TransactionOptions {
  /** The transaction waits for code of the host. It does not take a connection from other statements. */
  isHostPaced?: boolean;
}

/**
 * The engine's own connections. The host's pool hands out connections that have died silently, and
 * the host's handlers may use all of them. Here a connection is kept only after a plain answer.
 *
 * Statements pass through `DataSource.query`, so that instrumentation of the host sees them.
 *
 * No single statement has a server-side timeout: PgBouncer refuses it as a startup parameter, `SET`
 * would stay in a session that others use, `SET LOCAL` costs two round trips. A statement that takes
 * too long is cancelled instead.
 */
export class EnginePool implements Queryable {
  private driver: Driver | null | undefined;
  private main: Connections | undefined;
  private hostPaced: Connections | undefined;
  private readonly statements: Statements;
  private outage: Outage | undefined;
  private readonly transactions = new Semaphore(TRANSACTIONS);
  /** A cancel request that arrives late could hit the next statement: these are not used again. */
  private readonly cancelled = new WeakMap<PgClient, Promise<unknown>>();
  private readonly closing = new AbortController();
  private closed: Promise<void> | undefined;

  constructor(
    private readonly dataSource: DataSource,
    private readonly options: EnginePoolOptions,
  ) {
    this.statements = new Statements({
      timeoutMs: options.queryTimeoutMs,
      cancel: (client) => this.cancel(client),
      onLost: (error) => void this.beginOutage(error),
    });
  }

  get queryTimeoutMs(): number {
    return this.options.queryTimeoutMs;
  }

  get isClosed(): boolean {
    return this.closed !== undefined;
  }

  /** @throws ConnectionLostError, StatementTimeoutError, QueryFailedError */
  query(sql: string, parameters?: unknown[]): Promise<any> {
    return this.dataSource.query(sql, parameters, this.hasDriver ? this.runner : undefined);
  }

  /**
   * Runs one statement, and sends another one right after it on the same connection: two commits, one
   * after the other, without a round trip between them.
   */
  followedBy(next: PiggybackStatement): Queryable {
    const query = (sql: string, parameters?: unknown[]) => this.runBoth(sql, parameters, next);
    return this.hasDriver
      ? { query: (sql, parameters) => this.dataSource.query(sql, parameters, asQueryRunner(query)) }
      : this.dataSource;
  }

  /**
   * Runs a transaction; a few at a time.
   * @throws what `work` throws; ConnectionLostError, with `mayBeDone` only if the answer to COMMIT was
   *   lost; ConnectionLostError with a BusyError if no turn or no connection becomes free in time
   */
  async transaction<T>(
    work: (db: Queryable) => Promise<T>,
    { isHostPaced = false }: TransactionOptions = {},
  ): Promise<T> {
    // While the database is unreachable, transactions share one attempt instead of waiting in line.
    if (this.outage) this.connections.release(await this.connect('BEGIN', undefined));
    if (isHostPaced) return this.runTransaction(work, isHostPaced);
    const waitMs = QUERY_TIMEOUTS_IN_LINE * this.queryTimeoutMs;
    try {
      return await this.transactions.run(() => this.runTransaction(work, isHostPaced), waitMs);
    } catch (error) {
      if (!(error instanceof SemaphoreTimeoutError)) throw error;
      const busy = new BusyError(waitMs, 'turn for a transaction');
      throw new ConnectionLostError('BEGIN', undefined, busy, false);
    }
  }

  /** Lets statements end, and destroys connections that are left after `ms`. Idempotent; safe if never used. */
  close(ms: number): Promise<void> {
    this.closing.abort();
    this.closed ??= Promise.all([this.main?.close(ms), this.hostPaced?.close(ms)]).then(
      () => undefined,
    );
    return this.closed;
  }

  private readonly runner = asQueryRunner((sql, parameters) =>
    this.withConnection(sql, parameters, (client) =>
      this.statements.runSerializable(client, sql, parameters),
    ),
  );

  private runBoth(
    sql: string,
    parameters: unknown[] | undefined,
    next: PiggybackStatement,
  ): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const sent = this.withConnection(sql, parameters, async (client) => {
        const first = this.statements.runSerializable(client, sql, parameters);
        first.then(resolve, reject);
        const second = this.dataSource.query(
          next.sql,
          next.parameters,
          asQueryRunner((text, values) => this.statements.run(client, text, values)),
        );
        for (const end of await Promise.allSettled([first, second]))
          if (end.status === 'rejected') throw end.reason;
      });
      sent.then(
        () => next.settled(),
        (error: unknown) => {
          reject(error);
          next.settled(error);
        },
      );
    });
  }

  /** False if the DataSource does not use `pg`. */
  private get hasDriver(): boolean {
    this.driver ??= driverOf(this.dataSource);
    return this.driver !== null;
  }

  private get connections(): Connections {
    const { queryTimeoutMs: waitMs, max = POOL_SIZE } = this.options;
    return (this.main ??= new Connections(this.driver!, { max, min: 1, idleMs: IDLE_MS, waitMs }));
  }

  private get hostPacedConnections(): Connections {
    const waitMs = QUERY_TIMEOUTS_IN_LINE * this.queryTimeoutMs;
    return (this.hostPaced ??= new Connections(this.driver!, { ...HOST_PACED, waitMs }));
  }

  private runTransaction<T>(work: (db: Queryable) => Promise<T>, isHostPaced: boolean): Promise<T> {
    if (!this.hasDriver) return this.dataSource.transaction(work);
    const connections = isHostPaced ? this.hostPacedConnections : this.connections;
    const run = async (client: PgClient) => {
      const query = (sql: string, parameters?: unknown[]) =>
        this.statements.run(client, sql, parameters, { isServerTimed: true });
      let result: T;
      try {
        await query(this.statements.begin);
        result = await work({ query });
      } catch (error) {
        // Without a COMMIT nothing was done.
        if (error instanceof ConnectionLostError) throw error.withNothingDone();
        await query('ROLLBACK').catch((failure: unknown) => {
          if (failure instanceof ConnectionLostError) throw failure.withNothingDone();
          throw failure;
        });
        throw error;
      }
      await query('COMMIT');
      return result;
    };
    return this.withConnection('BEGIN', undefined, run, connections);
  }

  /** Keeps the connection if the database answered every statement on it in time. */
  private async withConnection<T>(
    sql: string,
    parameters: unknown[] | undefined,
    work: (client: PgClient) => Promise<T>,
    connections = this.connections,
  ): Promise<T> {
    const client = await this.connect(sql, parameters, connections);
    let isLost = false;
    try {
      return await work(client);
    } catch (error) {
      isLost = error instanceof ConnectionLostError;
      throw error;
    } finally {
      const cancelled = this.cancelled.get(client);
      if (cancelled) void cancelled.then(() => connections.destroy(client));
      else if (isLost) connections.destroy(client);
      else connections.release(client);
    }
  }

  /** @throws ConnectionLostError: nothing was sent */
  private async connect(
    sql: string,
    parameters: unknown[] | undefined,
    connections = this.connections,
  ): Promise<PooledClient> {
    try {
      if (this.closed) throw new Error('the engine has closed its connections');
      if (this.outage) await this.outage.waitForEnd();
      return await connections.acquire();
    } catch (error) {
      if (!(error instanceof BusyError)) this.beginOutage(error as Error).postpone();
      throw new ConnectionLostError(sql, parameters, error as Error, false);
    }
  }

  /**
   * A connection through the host's own stream, or of the native client, has no address for a cancel
   * request. Then a new connection shows whether the server answers.
   * @returns whether the server answers; false where the statement itself will show it
   */
  private cancel(client: PgClient): Promise<boolean> {
    const { Client, options } = this.driver!;
    if (!options['stream'] && canCancel(client)) {
      const cancelled = cancelStatement(client, CANCEL_MS).then(() => false);
      this.cancelled.set(client, cancelled);
      return cancelled;
    }
    return openConnection(Client, options, CANCEL_MS, 'probe').then(
      (connection) => {
        connection.destroy();
        return true;
      },
      (error: unknown) => isAnswer(error),
    );
  }

  private beginOutage(error: Error): Outage {
    this.main?.destroyIdle();
    this.hostPaced?.destroyIdle();
    if (!this.outage) {
      this.outage = new Outage(() => this.checkDatabase(), this.closing.signal);
      if (!this.closed) this.options.onLost?.(error);
    }
    return this.outage;
  }

  /** Ends the outage. Rejects if the database is still unreachable. */
  private async checkDatabase(): Promise<void> {
    const client = await this.connections.acquire();
    try {
      const [row] = await this.statements.run(client, READ_ONLY);
      if ((row as { readOnly: boolean }).readOnly) throw new ReadOnlyError();
    } catch (error) {
      this.connections.destroy(client);
      throw error instanceof QueryFailedError ? error.driverError : error;
    }
    this.connections.release(client);
    const outageMs = this.outage?.ms ?? 0;
    this.outage = undefined;
    this.options.onRestored?.(outageMs);
  }
}

const READ_ONLY = `SELECT current_setting('transaction_read_only')::boolean AS "readOnly"`;
