import { QueryFailedError, type DataSource } from 'typeorm';
import type { Queryable } from '../tables.js';
import { Connections, POOL_SIZE } from './connections.js';
import { cancelStatement, driverOf, type Driver, type PooledClient } from './driver.js';
import {
  BusyError,
  ConnectionLostError,
  NoAnswerError,
  ReadOnlyError,
} from './connection-errors.js';
import { asRunner, type Following } from './piggyback.js';
import { Outage } from './outage.js';
import { begin, untilSerial } from './serialization-retry.js';
import { Statements } from './statements.js';
import { Semaphore } from '../../concurrency/semaphore.js';

/** Leave connections for the rest. */
const LONG_TRANSACTIONS = 2;
const CANCEL_MS = 1_000;
export interface EnginePoolOptions {
  /** No statement waits longer for its answer. */
  queryTimeoutMs: number;
  /** Connections at once. */
  most?: number | undefined;
  /** The first sign that the database is away. */
  lost?: (error: Error) => void;
  back?: (outageMs: number) => void;
}

/**
 * The engine's own connections. The host's pool goes on handing out connections that died without a word, and the
 * host's handlers may be using all of them. Here a connection is kept after a plain answer of the server's, and only then.
 *
 * Statements pass through `DataSource.query`, so that who watches the host's statements sees these as well.
 *
 * No server-side timeout goes with a single statement: PgBouncer refuses it as a startup parameter, `SET` stays behind
 * in a session that others use, `SET LOCAL` costs two round trips. What is not answered in time is cancelled instead.
 */
export class EnginePool implements Queryable {
  private driver: Driver | null | undefined;
  private made: Connections | undefined;
  private readonly statements: Statements;
  private outage: Outage | undefined;
  private readonly longOnes = new Semaphore(LONG_TRANSACTIONS);
  private readonly closing = new AbortController();
  private closed: Promise<void> | undefined;

  constructor(
    private readonly dataSource: DataSource,
    private readonly options: EnginePoolOptions,
  ) {
    this.statements = new Statements(options.queryTimeoutMs, (error) => void this.lose(error));
  }

  get queryTimeoutMs(): number {
    return this.options.queryTimeoutMs;
  }

  get isClosed(): boolean {
    return this.closed !== undefined;
  }

  /** @throws ConnectionLostError, QueryFailedError */
  query(sql: string, parameters?: unknown[]): Promise<any> {
    return this.dataSource.query(sql, parameters, this.isOurs ? this.runner : undefined);
  }

  /**
   * For one statement, behind which another one is sent on the same connection: two commits, one after the other,
   * without the way to this process and back between them.
   */
  followedBy(next: Following): Queryable {
    const query = (sql: string, parameters?: unknown[]) => this.both(sql, parameters, next);
    return this.isOurs
      ? {
          query: (sql, parameters) => this.dataSource.query(sql, parameters, asRunner(query)),
        }
      : this.dataSource;
  }

  /**
   * Statements of one transaction; a few transactions at a time.
   * @throws ConnectionLostError, of something that may be done only if the answer to COMMIT was lost; what `work` throws
   */
  async transaction<T>(work: (db: Queryable) => Promise<T>): Promise<T> {
    // Who comes while the database is away does not wait in line for each other's attempts.
    if (this.outage) this.connections.giveBack(await this.connect('BEGIN', undefined));
    return this.longOnes.run(() =>
      this.isOurs ? this.begin(work) : this.dataSource.transaction(work),
    );
  }

  /** Lets what is under way end, and cuts off what is left after `ms`. Idempotent; safe if never used. */
  close(ms: number): Promise<void> {
    this.closing.abort();
    this.closed ??= this.made?.close(ms) ?? Promise.resolve();
    return this.closed;
  }

  private readonly runner = asRunner((sql, parameters) =>
    this.on(sql, parameters, (client) =>
      untilSerial(() => this.statements.ask(client, sql, parameters)),
    ),
  );

  private both(sql: string, parameters: unknown[] | undefined, next: Following): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const sent = this.on(sql, parameters, async (client) => {
        const first = untilSerial(() => this.statements.ask(client, sql, parameters));
        first.then(resolve, reject);
        const second = this.dataSource.query(
          next.sql,
          next.parameters,
          asRunner((text, values) => this.statements.ask(client, text, values)),
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

  /** Not where something else than `pg` stands behind the DataSource. */
  private get isOurs(): boolean {
    this.driver ??= driverOf(this.dataSource);
    return this.driver !== null;
  }

  private get connections(): Connections {
    const { queryTimeoutMs, most = POOL_SIZE } = this.options;
    return (this.made ??= new Connections(this.driver!, queryTimeoutMs, most));
  }

  private begin<T>(work: (db: Queryable) => Promise<T>): Promise<T> {
    return this.on('BEGIN', undefined, async (client) => {
      const ask = (sql: string, parameters?: unknown[]) =>
        this.statements.ask(client, sql, parameters);
      let result: T;
      try {
        await ask(begin(this.queryTimeoutMs));
        result = await work({ query: ask });
      } catch (error) {
        // What was not committed was not done.
        if (error instanceof ConnectionLostError) throw error.undone();
        await ask('ROLLBACK').catch((lost: ConnectionLostError) => {
          throw lost.undone();
        });
        throw error;
      }
      await ask('COMMIT');
      return result;
    });
  }

  /** A connection for this work: kept if the database answered everything that was asked on it. */
  private async on<T>(
    sql: string,
    parameters: unknown[] | undefined,
    work: (client: PooledClient) => Promise<T>,
  ): Promise<T> {
    const client = await this.connect(sql, parameters);
    try {
      const result = await work(client);
      this.connections.giveBack(client);
      return result;
    } catch (error) {
      if (error instanceof ConnectionLostError) this.drop(client, error);
      else this.connections.giveBack(client);
      throw error;
    }
  }

  /** @throws ConnectionLostError: nothing was sent */
  private async connect(sql: string, parameters: unknown[] | undefined): Promise<PooledClient> {
    try {
      if (this.closed) throw new Error('the engine has closed its connections');
      if (this.outage) await this.outage.over();
      return await this.connections.take();
    } catch (error) {
      if (!(error instanceof BusyError)) this.lose(error as Error).asked();
      throw new ConnectionLostError(sql, parameters, error as Error, false);
    }
  }

  private drop(client: PooledClient, { driverError }: QueryFailedError): void {
    const destroy = () => this.connections.destroy(client);
    // Nobody waits for it any more; it would go on holding locks, and waiting for them.
    if (driverError instanceof NoAnswerError && !this.driver?.options['stream'])
      void cancelStatement(client, CANCEL_MS).then(destroy);
    else destroy();
  }

  private lose(error: Error): Outage {
    this.made?.destroyIdle();
    if (!this.outage) {
      this.outage = new Outage(() => this.lookForIt(), this.closing.signal);
      if (!this.closed) this.options.lost?.(error);
    }
    return this.outage;
  }

  /** Rejects if the database is still away. */
  private async lookForIt(): Promise<void> {
    const client = await this.connections.take();
    try {
      const [row] = await this.statements.ask(client, READ_ONLY);
      if ((row as { readOnly: boolean }).readOnly) throw new ReadOnlyError();
    } catch (error) {
      this.connections.destroy(client);
      throw error instanceof QueryFailedError ? error.driverError : error;
    }
    this.connections.giveBack(client);
    const outageMs = this.outage?.ms ?? 0;
    this.outage = undefined;
    this.options.back?.(outageMs);
  }
}

const READ_ONLY = `SELECT current_setting('transaction_read_only')::boolean AS "readOnly"`;
