import { setTimeout as pause } from 'node:timers/promises';
import { isChange, nothing } from './session.js';
import { Session, type AnyClient } from './session.js';
import { savepointVerb, type ReadStatement } from './session.js';

/** After this time without a statement, a waiting transaction assumes that the open one waits for it. */
const QUIET_MS = 50;
const LOOK_MS = 10;
const PARTLY_UNDONE =
  "a transaction went on while another one was open beside it, and lost what it did with that one's rollback: on the one connection of begin() they nest. Test it without begin()";

/**
 * One connection for all sessions of an app while a test's transaction is open on it. A transaction of a
 * session is a savepoint. So is a single statement, because its failure must not abort the others.
 *
 * Savepoints nest, so transactions run one after the other. If the open one
 * cannot end first (its own code waits for the new one), the new one becomes part of it.
 */
export class SharedConnection {
  /** Open transactions, the outermost first. */
  private open: Session[] = [];
  private busy = false;
  private waiting: (() => void)[] = [];
  private lastAt = performance.now();
  private savepoints = 0;
  private over = false;
  /** What production would have. */
  private hasLost = false;

  constructor(private readonly client: AnyClient) {}

  session(): Session {
    return new Session(this);
  }

  async start(): Promise<void> {
    await this.client.query('BEGIN');
  }

  /** Undoes all changes. Later statements get an error. */
  async rollback(): Promise<void> {
    this.over = true;
    while (this.busy) await this.change();
    await this.client.query('ROLLBACK');
    if (this.hasLost) throw new Error(PARTLY_UNDONE);
  }

  async begin(session: Session, { sql, settings }: ReadStatement) {
    for (;;) {
      await this.take();
      if (this.open.length === 0 || this.isQuiet) break;
      await this.yield();
    }
    try {
      const savepoint = `test_${++this.savepoints}`;
      await this.send(`SAVEPOINT ${savepoint}`);
      this.open.push(session);
      session.savepoint = savepoint;
      if (sql === '') return nothing('BEGIN');
      await this.remember(session, settings);
      return await this.inside(session, sql);
    } finally {
      this.give();
    }
  }

  async commit(session: Session) {
    if (session.aborted) {
      await this.undo(session);
      return nothing('ROLLBACK');
    }
    await this.turn(session);
    try {
      if (session.isPartlyUndone) throw new Error(PARTLY_UNDONE);
      const isTop = this.open.at(-1) === session;
      this.open = this.open.filter((one) => one !== session);
      // A transaction that contains others is released with its enclosing one.
      if (isTop) await this.send(`RELEASE SAVEPOINT ${session.savepoint}`);
      for (const [name, before] of [...session.settings].toReversed())
        await this.send('SELECT set_config($1, $2, true)', [name, before]);
      session.ended();
      return nothing('COMMIT');
    } finally {
      this.give();
    }
  }

  async undo(session: Session) {
    await this.take();
    try {
      const { savepoint } = session;
      if (savepoint !== undefined) {
        const at = this.open.indexOf(session);
        for (const inner of this.open.splice(at).slice(1)) inner.undone();
        for (const outer of session.carried)
          if (this.open.includes(outer)) outer.isPartlyUndone = true;
          else this.hasLost = true;
        await this.send(`ROLLBACK TO SAVEPOINT ${savepoint}`);
        await this.send(`RELEASE SAVEPOINT ${savepoint}`);
        session.ended();
      }
      return nothing('ROLLBACK');
    } finally {
      this.give();
    }
  }

  async within(session: Session, settings: string[], ...statement: [unknown, ...unknown[]]) {
    await this.turn(session);
    try {
      await this.remember(session, settings);
      const answer = (await this.inside(session, ...statement)) as unknown;
      const inner = this.open.slice(this.open.indexOf(session) + 1);
      if (inner.length > 0 && isChange(answer)) for (const one of inner) one.carried.add(session);
      return answer;
    } finally {
      this.give();
    }
  }

  /** Runs a statement as its own transaction. @param keep false: undoes its changes and releases its locks */
  async alone(keep: boolean, ...statement: [unknown, ...unknown[]]) {
    await this.take();
    try {
      return await this.guarded(undefined, statement, keep);
    } finally {
      this.give();
    }
  }

  /** A statement that fails must not make others wait for its transaction's end: what PostgreSQL would refuse then is refused here. */
  private async inside(session: Session, ...statement: [unknown, ...unknown[]]) {
    const ofSavepoint = savepointVerb(statement[0]);
    if (session.aborted && ofSavepoint !== 'ROLLBACK')
      throw Object.assign(
        new Error(
          'current transaction is aborted, commands ignored until end of transaction block',
        ),
        { code: '25P02' },
      );
    if (!ofSavepoint) return this.guarded(session, statement);
    // In its own savepoint it would end with the savepoint.
    try {
      const answer = await this.send(...statement);
      session.aborted = false;
      return answer;
    } catch (error) {
      session.aborted = true;
      const at = this.open.indexOf(session);
      for (const inner of this.open.splice(at + 1)) inner.undone();
      await this.send(`ROLLBACK TO SAVEPOINT ${session.savepoint}`);
      throw error;
    }
  }

  /** They would not end with a savepoint. */
  private async remember({ settings, aborted }: Session, names: string[]) {
    for (const name of names) {
      if (aborted || settings.has(name)) continue;
      const { rows } = (await this.send('SELECT current_setting($1, true) AS value', [name])) as {
        rows: { value: string | null }[];
      };
      settings.set(name, rows[0]!.value ?? '');
    }
  }

  private async guarded(
    session: Session | undefined,
    statement: [unknown, ...unknown[]],
    keep = true,
  ) {
    const savepoint = `test_${++this.savepoints}`;
    await this.send(`SAVEPOINT ${savepoint}`);
    try {
      const answer = await this.send(...statement);
      if (!keep) await this.send(`ROLLBACK TO SAVEPOINT ${savepoint}`);
      return answer;
    } catch (error) {
      if (session) session.aborted = true;
      await this.send(`ROLLBACK TO SAVEPOINT ${savepoint}`);
      throw error;
    } finally {
      await this.send(`RELEASE SAVEPOINT ${savepoint}`);
    }
  }

  /** While others are open that were begun in its transaction: theirs come first, unless they wait for it. */
  private async turn(session: Session): Promise<void> {
    for (;;) {
      await this.take();
      if (this.open.at(-1) === session || this.isQuiet) return;
      await this.yield();
    }
  }

  private get isQuiet(): boolean {
    return performance.now() - this.lastAt > QUIET_MS;
  }

  private async yield(): Promise<void> {
    this.give();
    await Promise.race([this.change(), pause(LOOK_MS)]);
  }

  private async take(): Promise<void> {
    for (;;) {
      if (this.over) throw new Error("the test's transaction is over: it was rolled back");
      if (!this.busy) break;
      await this.change();
    }
    this.busy = true;
  }

  private give(): void {
    this.busy = false;
    const waiting = this.waiting.splice(0);
    for (const wake of waiting) wake();
  }

  private change(): Promise<void> {
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  private send(...statement: [unknown, ...unknown[]]): Promise<any> {
    this.lastAt = performance.now();
    return this.client.query(...statement) as Promise<any>;
  }
}
