import type { LogLevel } from '../../job/job-execution.js';
import type { JsonValue } from '../../job/json.js';
import type { LogSettings } from '../../options/settings.js';
import type { KeptLine } from '../../job/job-update.js';
import type { RunNote } from './run-log.sql.js';
import { bytesOf, cutBytes } from './byte-limit.js';
import { Ring } from './ring-buffer.js';

/** Between two writings of a run's progress, and before the first one: of runs that are over sooner nobody asks. */
const PROGRESS_EVERY_MS = 500;
/** What one who comes late is told of what was said before. */
const TAPE_ITEMS = 1_000;
const TAPE_CHARACTERS = 65_536;
/** For who watches: the run is still there when this has gone. */
const TAPE_KEPT_MS = 10 * 60_000;
const NOT_KEPT = '[not kept: the redact hook failed]';

interface Line extends KeptLine {
  /** Hooks see whole lines: one that was cut was theirs before. */
  isRedacted: boolean;
}

/** What the handler of one run has said, and what of it is still to be written. */
export class RunNotes {
  /** Not written yet. */
  private progress: { fraction: number; message: string | null } | undefined;
  /** When it was written last, or might have been. */
  private progressAt = performance.now();
  private progressWritten = false;
  private lines: Ring<Line> | undefined;
  private tape: Ring<{ n: number; json: string }> | undefined;
  private n = 0;
  /** Up to here the tape is written. */
  private written = 0;
  private keepsLog = false;
  private isOver = false;

  constructor(
    readonly jobRunId: string,
    readonly jobRunIdentifier: string,
    /** Nothing but numbers is to be written. */
    private readonly secret: boolean,
    private readonly logs: LogSettings,
  ) {}

  setProgress(fraction: number, message: string | undefined): void {
    const told = this.secret ? null : (message ?? null);
    this.progress = { fraction, message: told };
  }

  /** @param watched who watches is to see it now */
  addLine(level: LogLevel, message: string, watched: boolean): void {
    const { keep, lines, lineBytes, runBytes } = this.logs;
    if (this.secret) return;
    const at = new Date();
    const cut = cutBytes(message, lineBytes);
    const isRedacted = cut.length < message.length;
    const line = {
      at,
      level,
      message: isRedacted ? this.redacted(message) : cut,
      isRedacted,
    };
    if (watched) this.put({ level, message: this.shown(line) }, at);
    if (keep === 'never') return;
    this.lines ??= new Ring(lines, runBytes);
    this.lines.push(line, bytesOf(line.message));
  }

  /** @param chunk undefined: a gap */
  addChunk(chunk: JsonValue | undefined): void {
    if (!this.secret) this.put(chunk === undefined ? {} : { chunk }, new Date());
  }

  /** @param succeeded then its lines may not be worth keeping, and nor is progress of a moment that nobody has read of */
  end(succeeded: boolean): void {
    this.isOver = true;
    if (succeeded && !this.progressWritten) this.progress = undefined;
    this.keepsLog = this.lines !== undefined && (this.logs.keep === 'always' || !succeeded);
  }

  get over(): boolean {
    return this.isOver;
  }

  /** When something of it is to be written, by `performance.now`; Infinity: nothing. */
  dueAt(watched: boolean): number {
    if (this.keepsLog) return 0;
    if (watched && this.written < this.n) return 0;
    return this.progressDueAt(watched);
  }

  private progressDueAt(watched: boolean): number {
    if (this.progress === undefined) return Infinity;
    if (this.isOver || (watched && !this.progressWritten)) return 0;
    return this.progressAt + PROGRESS_EVERY_MS;
  }

  /** What is to be written now. @returns it, and what to do when it is written */
  take(watched: boolean): { notes: RunNote[]; landed: () => void } {
    const { jobRunId, progress, keepsLog, n, tape } = this;
    const keepMs = this.logs.retention;
    const notes: RunNote[] = [];
    const add = (kind: RunNote['kind'], value: string) =>
      notes.push({ jobRunId, kind, seq: 0, value, keepMs });
    if (progress && this.progressDueAt(watched) <= performance.now()) {
      add('progress', JSON.stringify(progress));
      this.progressAt = performance.now();
      this.progressWritten = true;
    }
    if (keepsLog) add('log', this.log());
    if (watched && tape && this.written < n)
      notes.push({
        jobRunId,
        kind: 'tape',
        seq: n,
        value: `[${tape.items
          .filter((item) => item.n > this.written)
          .map(({ json }) => json)
          .join(',')}]`,
        keepMs: TAPE_KEPT_MS,
        tapeFrom: tape.items[0]!.n,
      });
    const landed = () => {
      for (const { kind } of notes)
        if (kind === 'log') this.keepsLog = false;
        else if (kind === 'tape') this.written = n;
        else if (this.progress === progress) this.progress = undefined;
    };
    return { notes, landed };
  }

  private log(): string {
    const { items, dropped } = this.lines!;
    const lines = items.map((line) => ({
      at: line.at,
      level: line.level,
      message: this.shown(line),
    }));
    return JSON.stringify({ dropped, lines });
  }

  private put(item: object, at: Date): void {
    this.n++;
    const json = JSON.stringify({ n: this.n, at: at.getTime(), ...item });
    this.tape ??= new Ring(TAPE_ITEMS, TAPE_CHARACTERS);
    this.tape.push({ n: this.n, json }, json.length);
  }

  private shown({ message, isRedacted }: Line): string {
    return isRedacted ? message : this.redacted(message);
  }

  /** A hook that fails must not let through what it was to hide. */
  private redacted(line: string): string {
    const { redact, lineBytes } = this.logs;
    if (!redact) return cutBytes(line, lineBytes);
    try {
      const kept: unknown = redact(line);
      if (typeof kept === 'string') return cutBytes(kept, lineBytes);
      // What is asynchronous is none, and its rejection nobody's.
      Promise.resolve(kept).catch(() => undefined);
      return NOT_KEPT;
    } catch {
      return NOT_KEPT;
    }
  }
}
