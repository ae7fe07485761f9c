import { CoalescedTask } from '../../concurrency/coalesced-task.js';
import { waitAtMost } from '../../concurrency/timers.js';
import { BYTES_PER_STATEMENT } from '../../concurrency/write-batcher.js';
import { ConnectionLostError } from '../../database/connection/connection-errors.js';
import { passes } from '../../database/database-error.js';
import type { EngineContext } from '../../database/engine-context.js';
import { writeNotes, type RunNote } from './run-log.sql.js';
import type { RunReport } from './run-report.js';

/** Between two statements, however many runs report. */
const STATEMENT_EVERY_MS = 100;
const NOTES_PER_STATEMENT = 1_000;
/** While the database is away. */
const RETRY_MS = 1_000;
/** Reports of ended runs that wait until the database is back; more are lost. */
const MAX_WAITING = 1_000;
const REPORT_FAILURE_EVERY_MS = 60_000;
/** What the last statement may take. */
const CLOSE_MS = 2_000;

export interface Watchers {
  isWatched(jobRunIdentifier: string): boolean;
  signalChange(jobRunIdentifier: string): void;
}

/** Writes the reports of all runs of a node, apart from the path of the jobs. */
export class RunReportWriter {
  private readonly changed = new Set<RunReport>();
  private readonly writing = new CoalescedTask(
    () => this.write(),
    (error) => this.reportFailure(error),
  );
  /** No statement before, by `performance.now()`. */
  private notBefore = 0;
  private isAway = false;
  private failureReportedAt = -Infinity;

  constructor(
    private readonly engine: EngineContext,
    private readonly watchers: Watchers,
  ) {}

  /** The report has changed. */
  add(report: RunReport): void {
    const dueAt = this.dueAt(report);
    if (dueAt === Infinity) return;
    this.changed.add(report);
    this.writeAt(dueAt);
  }

  /** The last call for a report: its run is over, and nobody else holds it. */
  addEnded(report: RunReport): void {
    const isLost = this.isAway && this.changed.size >= MAX_WAITING;
    if (isLost || this.dueAt(report) === Infinity) this.changed.delete(report);
    else this.add(report);
  }

  /** Writes what is left, as far as the database answers in time. */
  async close(): Promise<void> {
    await waitAtMost(CLOSE_MS, this.writeLast());
    this.changed.clear();
  }

  private async writeLast(): Promise<void> {
    await this.writing.stop();
    await this.write();
  }

  private dueAt(report: RunReport): number {
    return report.dueAt(this.watchers.isWatched(report.jobRunIdentifier));
  }

  private writeAt(dueAt: number): void {
    this.writing.request(Math.max(dueAt, this.notBefore) - performance.now());
  }

  private async write(): Promise<void> {
    await this.writeDue();
    let next = Infinity;
    for (const report of this.changed) {
      const dueAt = this.dueAt(report);
      // Its watcher has left, and nobody adds it again.
      if (dueAt === Infinity && report.isEnded) this.changed.delete(report);
      next = Math.min(next, dueAt);
    }
    if (next < Infinity) this.writeAt(next);
  }

  private async writeDue(): Promise<void> {
    const now = performance.now();
    this.notBefore = now + STATEMENT_EVERY_MS;
    const due = [...this.changed].filter((report) => this.dueAt(report) <= now);
    let notes: RunNote[] = [];
    let bytes = 0;
    let taken: Taken[] = [];
    for (const [index, report] of due.entries()) {
      const { notes: more, written } = report.take(
        this.watchers.isWatched(report.jobRunIdentifier),
      );
      notes.push(...more);
      taken.push({ report, written });
      for (const { value } of more) bytes += value.length;
      const isFull = notes.length >= NOTES_PER_STATEMENT || bytes >= BYTES_PER_STATEMENT;
      if (!isFull && index < due.length - 1) continue;
      if (!(await this.send(notes, taken))) return;
      notes = [];
      taken = [];
      bytes = 0;
    }
  }

  /** @returns false if the rest has to wait for the database */
  private async send(notes: RunNote[], taken: Taken[]): Promise<boolean> {
    const { db, tables } = this.engine.store;
    try {
      if (notes.length > 0) await writeNotes(db, tables, notes);
    } catch (error) {
      const isLost = error instanceof ConnectionLostError;
      if (!isLost) this.reportFailure(error);
      if (isLost || passes(error)) {
        this.isAway = true;
        this.notBefore = performance.now() + RETRY_MS;
        return false;
      }
      // Another attempt would be refused as well.
    }
    this.isAway = false;
    for (const { report, written } of taken) {
      written();
      if (this.dueAt(report) === Infinity) this.changed.delete(report);
      this.watchers.signalChange(report.jobRunIdentifier);
    }
    return true;
  }

  /** A missing privilege, for example, fails ten times a second. */
  private reportFailure(error: unknown): void {
    const now = performance.now();
    if (now < this.failureReportedAt + REPORT_FAILURE_EVERY_MS) return;
    this.failureReportedAt = now;
    const doing = 'writing progress, log lines and output of jobs';
    this.engine.events.emit('engine.error', { doing, error });
  }
}

interface Taken {
  report: RunReport;
  written: () => void;
}
