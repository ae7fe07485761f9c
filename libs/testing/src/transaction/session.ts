import { EventEmitter } from 'node:events';
import { BildadConfigError } from 'nestjs-bildad';
import type { SharedConnection } from './shared-connection.js';

const CHANGES = new Set(['INSERT', 'UPDATE', 'DELETE', 'MERGE']);

/** Whether an answered statement changed rows. */
export const isChange = (answer: unknown): boolean =>
  [answer].flat().some((one) => CHANGES.has((one as { command?: string }).command ?? ''));

/** The answer to a statement that is not sent. */
export const nothing = (command: string) => ({
  command,
  rowCount: 0,
  rows: [] as unknown[],
  fields: [] as unknown[],
});

/** The effect of a statement on a transaction. */
export type StatementKind = 'begin' | 'commit' | 'rollback' | 'nothing' | 'other';

/** Settings that a savepoint cannot have: they would apply to the test's whole transaction. */
const OF_ITS_OWN =
  /\bSET LOCAL (?:transaction_isolation|statement_timeout|lock_timeout|idle_in_transaction_session_timeout) = (?:'[^']*'|[^;']*)\s*(?:;|$)/gi;
const LOCAL =
  /\bSET\s+LOCAL\s+(TIME\s+ZONE|[\w.]+)|\bset_config\s*\(\s*(?:'([\w.]+)'|\$(\d+))[^;]*?,\s*true\s*\)/gi;

export interface ReadStatement {
  kind: StatementKind;
  /** The part of the statement that is sent. */
  sql: string;
  /** Names of its settings that are local to the transaction. */
  settings: string[];
}

const LEADING = /^(?:\s|\/\*[^]*?\*\/|--[^\n]*\n)+/;

/** The effect of a statement on a savepoint of the app. */
export function savepointVerb(statement: unknown): string | undefined {
  const config = statement as string | { text?: string };
  const text = typeof config === 'string' ? config : (config.text ?? '');
  const word = /^(?:SAVEPOINT|RELEASE|ROLLBACK)\b/i.exec(text.replace(LEADING, ''));
  return word?.[0].toUpperCase();
}

const QUOTED = /'(?:[^']|'')*'|"[^"]*"|\$(\w*)\$[^]*?\$\1\$|--[^\n]*|\/\*[^]*?\*\//g;
const OF_TRANSACTIONS =
  /;\s*(?:BEGIN|START\s+TRANSACTION|COMMIT|END|ABORT|ROLLBACK(?!\s+(?:\w+\s+)?TO\b))\b/i;

/** Whether a later statement of a text with several begins or ends a transaction, which would end the test's. */
export const endsWithin = (sql: string): boolean =>
  sql.includes(';') &&
  OF_TRANSACTIONS.test(sql.replace(QUOTED, ' ')) &&
  !/\bBEGIN\s+ATOMIC\b/i.test(sql);

/**
 * Whether it is an engine's heartbeat. Its lock on the node's row would last as long as the test, and the node's pulse, on
 * a connection of its own, wait for it until the node takes itself for lost. Leases that are not renewed lose no run
 * meanwhile: a node that beats and renews none is taken for busy.
 */
export const isHeartbeat = (sql: string): boolean => /"job_nodes" SET renewed_until\b/.test(sql);

/** A savepoint replaces the transaction that a statement begins or ends. */
export function readStatement(sql: string, values: unknown = []): ReadStatement {
  const text = sql.replace(LEADING, '');
  const word = /^[a-z]+/i.exec(text)?.[0].toUpperCase();
  if (word === 'BEGIN' || word === 'START') {
    const semicolon = text.indexOf(';');
    const rest = semicolon < 0 ? '' : text.slice(semicolon + 1);
    return { kind: 'begin', ...kept(rest) };
  }
  if (word === 'COMMIT' || word === 'END') return { kind: 'commit', sql: '', settings: [] };
  if (word === 'ABORT' || (word === 'ROLLBACK' && !/^ROLLBACK\s+(?:\w+\s+)?TO\b/i.test(text)))
    return { kind: 'rollback', sql: '', settings: [] };
  if (word !== 'SET') return { kind: 'other', sql, settings: localSettings(sql, values) };
  if (/^SET\s+TRANSACTION\b/i.test(text)) return { kind: 'nothing', sql: '', settings: [] };
  const left = kept(sql);
  return { kind: left.sql === '' ? 'nothing' : 'other', ...left };
}

function kept(sql: string) {
  const left = sql.replace(OF_ITS_OWN, '').trim();
  return { sql: left, settings: localSettings(left, []) };
}

function localSettings(sql: string, values: unknown): string[] {
  return Array.from(sql.matchAll(LOCAL), ([, set, named, numbered]) => {
    const name = named ?? set;
    if (name === undefined)
      return String((values as unknown[] | undefined)?.[Number(numbered) - 1]);
    return /^TIME\s/i.test(name) ? 'timezone' : name.toLowerCase();
  });
}

/** The used part of a `pg` client. */
export interface AnyClient {
  query(...statement: unknown[]): unknown;
  release(error?: unknown): void;
}

type Answered = (error: unknown, answer?: unknown) => void;

/** Replaces a connection of a pool. */
export class Session extends EventEmitter implements AnyClient {
  /** Of its transaction, while it has one. */
  savepoint: string | undefined;
  /** Settings that are local to its transaction, with their earlier values. */
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
      // A caller that sends a statement for each row would wait for ever: that statement is sent after the last row.
      throw new BildadConfigError(
        'query',
        `cannot be a stream or cursor (${config.constructor.name}) between begin() and rollback(), which share one connection: test it without begin()`,
      );
    const answered = given.at(-1);
    const called = typeof answered === 'function';
    const statement = (called ? given.slice(0, -1) : given) as [unknown];
    const text = typeof config === 'string' ? config : (config.text ?? '');
    // In order, each after the answer to the one before it.
    const answer = this.last.then(() => this.ask(text, statement));
    this.last = answer.catch(() => undefined);
    if (!called) return answer;
    answer.then(
      (result) => (answered as Answered)(null, result),
      (error: unknown) => (answered as Answered)(error),
    );
    return undefined;
  }

  /** Rolls back its open transaction, as if the connection was closed. */
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

  /** Called when its transaction has ended. */
  ended(): void {
    this.savepoint = undefined;
    this.aborted = false;
    this.isPartlyUndone = false;
    this.carried.clear();
    this.settings.clear();
  }

  /** Called when the enclosing transaction was rolled back. */
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
