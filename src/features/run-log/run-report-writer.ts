import { CoalescedTask } from '../../concurrency/coalesced-task.js';
import { waitAtMost } from '../../concurrency/timers.js';
import { BYTES_PER_STATEMENT } from '../../concurrency/write-batcher.js';
import { ConnectionLostError } from '../../database/connection/connection-errors.js';
import { isTransient } from '../../database/database-error.js';
import type { EngineContext } from '../../database/engine-context.js';
import { writeNotes, type RunNote } from './run-log.sql.js';
import type { RunReport } from './run-report.js';

/** Time between two statements, however many runs report. */
const STATEMENT_EVERY_MS = 100;
const NOTES_PER_STATEMENT = 1_000;
/** Time between two attempts while the database is unreachable. */
const RETRY_MS = 1_000;
/** Reports of ended runs that wait during an outage; more are dropped. */
const MAX_WAITING = 1_000;
const REPORT_FAILURE_EVERY_MS = 60_000;
/** Limit for the last statement. */
const CLOSE_MS = 2_000;

export interface Watchers {
  isWatched(jobRunIdentifier: string): boolean;
  signalChange(jobRunIdentifier: string): void;
}

/** Writes the reports of all runs of a node in the background. */
export class RunReportWriter {
  private readonly changed = new Set<RunReport>();
  private readonly writing = new CoalescedTask(
    () => this.write(),
    (error) => this.reportFailure(error),
  );
  /** No statement is sent before this time (`performance.now()`). */
  private notBefore = 0;
  private isUnreachable = false;
  private failureReportedAt = -Infinity;

  constructor(
    private readonly engine: EngineContext,
    private readonly watchers: Watchers,
  ) {}

  /** Schedules the write of a changed report. */
  add(report: RunReport): void {
    const dueAt = this.dueAt(report);
    if (dueAt === Infinity) return;
    this.changed.add(report);
    this.writeAt(dueAt);
  }

  /** Schedules the last write of a report after the end of its run. */
  addEnded(report: RunReport): void {
    const isLost = this.isUnreachable && this.changed.size >= MAX_WAITING;
    if (isLost || this.dueAt(report) === Infinity) this.changed.delete(report);
    else this.add(report);
  }

  /** Writes the rest if the database answers in time. */
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
      // Its watcher has left: no further call will write it.
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
    let batch: PendingWrite[] = [];
    for (const [index, report] of due.entries()) {
      const { notes: more, written } = report.collectNotes(
        this.watchers.isWatched(report.jobRunIdentifier),
      );
      notes.push(...more);
      batch.push({ report, written });
      for (const { value } of more) bytes += value.length;
      const isFull = notes.length >= NOTES_PER_STATEMENT || bytes >= BYTES_PER_STATEMENT;
      if (!isFull && index < due.length - 1) continue;
      if (!(await this.send(notes, batch))) return;
      notes = [];
      batch = [];
      bytes = 0;
    }
  }

  /** @returns false if the database is unreachable */
  private async send(notes: RunNote[], batch: PendingWrite[]): Promise<boolean> {
    const { db, tables } = this.engine.store;
    try {
      if (notes.length > 0) await writeNotes(db, tables, notes);
    } catch (error) {
      const isLost = error instanceof ConnectionLostError;
      if (!isLost) this.reportFailure(error);
      if (isLost || isTransient(error)) {
        this.isUnreachable = true;
        this.notBefore = performance.now() + RETRY_MS;
        return false;
      }
      // Another attempt would be refused as well.
    }
    this.isUnreachable = false;
    for (const { report, written } of batch) {
      written();
      if (this.dueAt(report) === Infinity) this.changed.delete(report);
      this.watchers.signalChange(report.jobRunIdentifier);
    }
    return true;
  }

  /** Reports at most once a minute: a missing privilege, for example, fails ten times a second. */
  private reportFailure(error: unknown): void {
    const now = performance.now();
    if (now < this.failureReportedAt + REPORT_FAILURE_EVERY_MS) return;
    this.failureReportedAt = now;
    const doing = 'writing progress, log lines and output of jobs';
    this.engine.events.emit('engine.error', { doing, error });
  }
}

interface PendingWrite {
  report: RunReport;
  written: () => void;
}
