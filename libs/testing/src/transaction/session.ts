import { EventEmitter } from 'node:events';
import { BildadConfigError } from 'nestjs-bildad';
import { nothing } from './answers.js';
import type { SharedConnection } from './shared-connection.js';
import { endsWithin, isHeartbeat, readStatement } from './statement.js';

/** As much of a client of `pg` as is needed. */
export interface AnyClient {
  query(...statement: unknown[]): unknown;
  release(error?: unknown): void;
}

type Answered = (error: unknown, answer?: unknown) => void;

/** Stands in for a connection that a pool hands out. */
export class Session extends EventEmitter implements AnyClient {
  /** Of its transaction, while it has one. */
  savepoint: string | undefined;
  /** Those that it makes for its transaction only, with what they were before. */
  readonly settings = new Map<string, string>();
  /** A statement of its transaction has failed. */
  aborted = false;
  /** Whose statements were made in its transaction, as it was begun while theirs was open. */
  readonly carried = new Set<Session>();
  /** Some of its own were, and are undone with that. */
  isPartlyUndone = false;
  readonly processID = null;
  private last: Promise<unknown> = Promise.resolve();
  private lost = false;

  constructor(private readonly shared: SharedConnection) {
    super();
    this.setMaxListeners(0);
  }

  /** As `pg` takes it: a text or a config, values, a callback. @throws BildadConfigError for what submits itself */
  query(...given: unknown[]): unknown {
    const [first] = given;
    const config = first as { text?: string; submit?: unknown } | string;
    if (typeof config === 'object' && typeof config.submit === 'function')
      // Whoever makes a statement for each of its rows would wait for good: that is sent when the last row was read.
      throw new BildadConfigError(
        'query',
        `cannot be a stream or cursor (${config.constructor.name}) between begin() and rollback(), which share one connection: test it without begin()`,
      );
    const answered = given.at(-1);
    const called = typeof answered === 'function';
    const statement = (called ? given.slice(0, -1) : given) as [unknown];
    const text = typeof config === 'string' ? config : (config.text ?? '');
    // In the order they were asked, each when the one before it was answered.
    const answer = this.last.then(() => this.ask(text, statement));
    this.last = answer.catch(() => undefined);
    if (!called) return answer;
    answer.then(
      (result) => (answered as Answered)(null, result),
      (error: unknown) => (answered as Answered)(error),
    );
    return undefined;
  }

  /** What it left open is rolled back, as where a connection is closed. */
  release(_error?: unknown): void {
    if (this.savepoint === undefined) return;
    this.last = this.last.then(() => this.shared.undo(this)).catch(() => undefined);
  }

  async end(): Promise<void> {
    this.release();
    await this.last;
    this.emit('end');
  }

  connect(): Promise<this> {
    return Promise.resolve(this);
  }

  /** Its transaction is over. */
  ended(): void {
    this.savepoint = undefined;
    this.aborted = false;
    this.isPartlyUndone = false;
    this.carried.clear();
    this.settings.clear();
  }

  /** The transaction that its own was begun in was rolled back. */
  undone(): void {
    this.ended();
    this.lost = true;
  }

  private async ask(text: string, statement: [unknown, ...unknown[]]) {
    const { shared } = this;
    if (endsWithin(text))
      throw new BildadConfigError(
        'query',
        "must not mix statements that begin or end a transaction with others inside of a test's transaction",
        { got: text },
      );
    const [, values] = statement;
    const read = readStatement(text, values);
    if (this.lost && read.kind !== 'begin') {
      this.lost = read.kind !== 'commit' && read.kind !== 'rollback';
      if (read.kind === 'rollback') return nothing('ROLLBACK');
      throw new Error(
        'its transaction was rolled back with the one it was begun in: they share the connection of the test',
      );
    }
    const inTransaction = this.savepoint !== undefined;
    switch (read.kind) {
      case 'begin':
        this.lost = false;
        return inTransaction ? nothing('BEGIN') : shared.begin(this, read);
      case 'commit':
        return inTransaction ? shared.commit(this) : nothing('COMMIT');
      case 'rollback':
        return inTransaction ? shared.undo(this) : nothing('ROLLBACK');
      case 'nothing':
        return nothing('SET');
      case 'other':
        break;
    }
    if (!inTransaction) return shared.alone(!isHeartbeat(text), ...statement);
    // As it is, with its values, where nothing of it was left out.
    return read.sql === text
      ? shared.within(this, read.settings, ...statement)
      : shared.within(this, read.settings, read.sql);
  }
}
