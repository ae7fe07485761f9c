import { AsyncLocalStorage } from 'node:async_hooks';
import type { Store } from '../../database/store.js';
import type { JobEvents } from '../../job/events.js';
import { ConnectionLostError } from '../../database/connection/connection-errors.js';
import { passes } from '../../database/database-error.js';
import { writeNotes, type RunNote } from './run-log.sql.js';
import type { RunNotes } from './run-log.js';

/** Between two statements, however many runs say something. */
const STATEMENT_EVERY_MS = 100;
const NOTES_PER_STATEMENT = 1_000;
const BYTES_PER_STATEMENT = 4 * 1_048_576;
/** While the database is away. */
const AGAIN_MS = 1_000;
/** Runs that have ended and wait for the database to be back. What comes on top of that is lost. */
const MOST_WAITING = 1_000;
/** That it fails is told as often at the most. */
const SAY_FAILED_MS = 60_000;
/** What the last statement may take. */
const CLOSE_MS = 2_000;

/** What is written is no part of the job that set it off. */
const outside = AsyncLocalStorage.snapshot();

/** Timers, which are not a feature's own. */
export interface Clock {
  runAfter(ms: number, work: () => void, options: { keepsAlive: false }): () => void;
  waitAtMost(ms: number, work: Promise<unknown>): Promise<void>;
}

interface Watcher {
  isWatched(identifier: string): boolean;
  signalChange(identifier: string): void;
}

/** Writes what runs have said, for all of a node together. Nothing of it keeps a process alive. */
export class NotesWriter {
  private readonly dirty = new Set<RunNotes>();
  private cancel: () => void = () => undefined;
  private timerAt = Infinity;
  private writing: Promise<void> | undefined;
  /** No statement before. */
  private notBefore = 0;
  private isAway = false;
  private saidFailedAt = -Infinity;
  private closed = false;

  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly watcher: Watcher,
    private readonly clock: Clock,
  ) {}

  /** Something of the run is new. */
  note(run: RunNotes): void {
    const dueAt = this.dueAt(run);
    if (dueAt === Infinity) return;
    this.dirty.add(run);
    this.wakeAt(dueAt);
  }

  /** The same of one that is over, which nobody else remembers. */
  last(run: RunNotes): void {
    if (this.dueAt(run) === Infinity) return void this.dirty.delete(run);
    if (this.isAway && this.dirty.size >= MOST_WAITING) return void this.dirty.delete(run);
    this.note(run);
  }

  /** Writes what there is, if the database lets it. */
  async close(): Promise<void> {
    this.closed = true;
    this.cancel();
    await this.clock.waitAtMost(CLOSE_MS, this.writeLast());
    this.dirty.clear();
  }

  private async writeLast(): Promise<void> {
    await this.writing;
    if (this.dirty.size > 0) await this.write();
  }

  private dueAt(run: RunNotes): number {
    return run.dueAt(this.watcher.isWatched(run.jobRunIdentifier));
  }

  private wakeAt(dueAt: number): void {
    const at = Math.max(dueAt, this.notBefore);
    if (this.closed || this.writing || at >= this.timerAt) return;
    this.cancel();
    this.timerAt = at;
    const ms = Math.max(at - performance.now(), 0);
    this.cancel = outside(() => this.clock.runAfter(ms, () => this.start(), { keepsAlive: false }));
  }

  private start(): void {
    this.timerAt = Infinity;
    this.writing ??= this.write().finally(() => {
      this.writing = undefined;
      let next = Infinity;
      for (const run of this.dirty) {
        const dueAt = this.dueAt(run);
        // Who watched it has left, and nobody else notes it again.
        if (dueAt === Infinity && run.over) this.dirty.delete(run);
        next = Math.min(next, dueAt);
      }
      if (next < Infinity) this.wakeAt(next);
    });
  }

  /** Never rejects. */
  private async write(): Promise<void> {
    const now = performance.now();
    this.notBefore = now + STATEMENT_EVERY_MS;
    const due = [...this.dirty].filter((run) => this.dueAt(run) <= now);
    let notes: RunNote[] = [];
    let bytes = 0;
    let runs: { run: RunNotes; landed: () => void }[] = [];
    for (const [index, run] of due.entries()) {
      const taken = run.take(this.watcher.isWatched(run.jobRunIdentifier));
      notes.push(...taken.notes);
      runs.push({ run, landed: taken.landed });
      for (const { value } of taken.notes) bytes += value.length;
      const isFull = notes.length >= NOTES_PER_STATEMENT || bytes >= BYTES_PER_STATEMENT;
      if (!isFull && index < due.length - 1) continue;
      if (!(await this.send(notes, runs))) return;
      notes = [];
      runs = [];
      bytes = 0;
    }
  }

  /** A missing right, as an example, is so ten times a second. */
  private failed(error: unknown): void {
    const now = performance.now();
    if (now < this.saidFailedAt + SAY_FAILED_MS) return;
    this.saidFailedAt = now;
    const doing = 'writing what jobs said';
    this.events.emit('engine.error', { doing, error });
  }

  /** @returns whether to go on */
  private async send(
    notes: RunNote[],
    runs: { run: RunNotes; landed: () => void }[],
  ): Promise<boolean> {
    const { db, tables } = this.store;
    try {
      if (notes.length > 0) await writeNotes(db, tables, notes);
    } catch (error) {
      const isLost = error instanceof ConnectionLostError;
      if (isLost || passes(error)) {
        if (!isLost) this.failed(error);
        this.isAway = true;
        this.notBefore = performance.now() + AGAIN_MS;
        return false;
      }
      // It would be refused again.
      this.failed(error);
    }
    this.isAway = false;
    for (const { run, landed } of runs) {
      landed();
      if (this.dueAt(run) === Infinity) this.dirty.delete(run);
      this.watcher.signalChange(run.jobRunIdentifier);
    }
    return true;
  }
}
