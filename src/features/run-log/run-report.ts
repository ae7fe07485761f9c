import type { LogLevel } from '../../job/job-handler.js';
import type { JsonValue } from '../../job/json.js';
import type { KeptLine } from '../../job/job-update.js';
import type { LogSettings } from '../../options/settings.js';
import type { RunNote } from './run-log.sql.js';

/** Time before the first write of a run's progress, and between two writes. */
const PROGRESS_EVERY_MS = 500;
/** Earlier lines and output that a late watcher receives. */
const MAX_OUTPUT_ITEMS = 1_000;
const MAX_OUTPUT_CHARACTERS = 65_536;
/** Output is stored for watchers only, and deleted before the run. */
const KEEP_OUTPUT_MS = 10 * 60_000;
const NOT_STORED = '[not stored: the redact hook failed]';

interface Line extends KeptLine {
  /** A long line is redacted before it is cut, because hooks see whole lines. */
  isRedacted: boolean;
}

/** The reports of one run's handler, and which of them are not written yet. */
export class RunReport {
  /** Not written yet. */
  private progress: { fraction: number; message: string | null } | undefined;
  /** When progress was last written, or the start of the report. */
  private progressAt = performance.now();
  private isProgressWritten = false;
  private lines: RecentItems<Line> | undefined;
  /** Lines and chunks for watchers, as JSON. */
  private output: RecentItems<{ n: number; json: string }> | undefined;
  private lastOutput = 0;
  private lastWrittenOutput = 0;
  private keepsLog = false;
  private hasEnded = false;

  constructor(
    readonly jobRunId: string,
    readonly jobRunIdentifier: string,
    /** The job is encrypted: only numbers are written. */
    private readonly isSecret: boolean,
    private readonly logs: LogSettings,
  ) {}

  setProgress(fraction: number, message: string | undefined): void {
    this.progress = { fraction, message: this.isSecret ? null : (message ?? null) };
  }

  /** @param isWatched also adds the line to the output for watchers */
  addLine(level: LogLevel, message: string, isWatched: boolean): void {
    const { keep, lines, lineBytes, runBytes } = this.logs;
    if (this.isSecret) return;
    const at = new Date();
    const cut = cutBytes(message, lineBytes);
    const isRedacted = cut.length < message.length;
    const line = { at, level, message: isRedacted ? this.redact(message) : cut, isRedacted };
    if (isWatched) this.addOutput({ level, message: this.messageOf(line) }, at);
    if (keep === 'never') return;
    this.lines ??= new RecentItems(lines, runBytes);
    this.lines.push(line, Buffer.byteLength(line.message));
  }

  /** @param chunk undefined: a gap */
  addChunk(chunk: JsonValue | undefined): void {
    if (!this.isSecret) this.addOutput(chunk === undefined ? {} : { chunk }, new Date());
  }

  /** @param succeeded drops progress that was never written, and lines unless all are stored */
  end(succeeded: boolean): void {
    this.hasEnded = true;
    if (succeeded && !this.isProgressWritten) this.progress = undefined;
    this.keepsLog = this.lines !== undefined && (this.logs.keep === 'always' || !succeeded);
  }

  get isEnded(): boolean {
    return this.hasEnded;
  }

  /** When the next write is due (`performance.now()`); Infinity: nothing to write. */
  dueAt(isWatched: boolean): number {
    if (this.keepsLog) return 0;
    if (isWatched && this.lastWrittenOutput < this.lastOutput) return 0;
    return this.progressDueAt(isWatched);
  }

  private progressDueAt(isWatched: boolean): number {
    if (this.progress === undefined) return Infinity;
    if (this.hasEnded || (isWatched && !this.isProgressWritten)) return 0;
    return this.progressAt + PROGRESS_EVERY_MS;
  }

  /** @returns the rows to write now, and a function to call when they are written */
  collectNotes(isWatched: boolean): { notes: RunNote[]; written: () => void } {
    const { jobRunId, progress, output, lastOutput } = this;
    const keepMs = this.logs.retention;
    const notes: RunNote[] = [];
    if (progress && this.progressDueAt(isWatched) <= performance.now()) {
      notes.push({ jobRunId, kind: 'progress', seq: 0, value: JSON.stringify(progress), keepMs });
      this.progressAt = performance.now();
      this.isProgressWritten = true;
    }
    if (this.keepsLog) notes.push({ jobRunId, kind: 'log', seq: 0, value: this.logJson(), keepMs });
    if (isWatched && output && this.lastWrittenOutput < lastOutput) {
      const items = output.items.filter(({ n }) => n > this.lastWrittenOutput);
      notes.push({
        jobRunId,
        kind: 'output',
        seq: lastOutput,
        value: `[${items.map(({ json }) => json).join(',')}]`,
        keepMs: KEEP_OUTPUT_MS,
        outputFrom: output.items[0]!.n,
      });
    }
    const written = () => {
      for (const { kind } of notes)
        if (kind === 'log') this.keepsLog = false;
        else if (kind === 'output') this.lastWrittenOutput = lastOutput;
        else if (this.progress === progress) this.progress = undefined;
    };
    return { notes, written };
  }

  private logJson(): string {
    const { items, dropped } = this.lines!;
    const lines = items.map((line) => ({
      at: line.at,
      level: line.level,
      message: this.messageOf(line),
    }));
    return JSON.stringify({ dropped, lines });
  }

  private addOutput(item: object, at: Date): void {
    const n = ++this.lastOutput;
    const json = JSON.stringify({ n, at: at.getTime(), ...item });
    this.output ??= new RecentItems(MAX_OUTPUT_ITEMS, MAX_OUTPUT_CHARACTERS);
    this.output.push({ n, json }, json.length);
  }

  private messageOf({ message, isRedacted }: Line): string {
    return isRedacted ? message : this.redact(message);
  }

  /** If the hook fails, the line is not stored. */
  private redact(line: string): string {
    const { redact, lineBytes } = this.logs;
    if (!redact) return cutBytes(line, lineBytes);
    try {
      const redacted: unknown = redact(line);
      if (typeof redacted === 'string') return cutBytes(redacted, lineBytes);
      // An asynchronous hook is not supported; its rejection must not be unhandled.
      Promise.resolve(redacted).catch(() => undefined);
      return NOT_STORED;
    } catch {
      return NOT_STORED;
    }
  }
}

/** The last items, bounded in number and in size. */
class RecentItems<T> {
  readonly items: T[] = [];
  private readonly sizes: number[] = [];
  private size = 0;
  dropped = 0;

  constructor(
    private readonly maxItems: number,
    private readonly maxSize: number,
  ) {}

  push(item: T, size: number): void {
    this.items.push(item);
    this.sizes.push(size);
    this.size += size;
    // The newest item always stays.
    while (
      this.items.length > 1 &&
      (this.items.length > this.maxItems || this.size > this.maxSize)
    ) {
      this.items.shift();
      this.size -= this.sizes.shift()!;
      this.dropped++;
    }
  }
}

const encoder = new TextEncoder();
/** The longest allowed line. */
const scratch = new Uint8Array(65_536);
/** UTF-8, per UTF-16 code unit. */
const MAX_BYTES_PER_UNIT = 3;

/** The beginning of a text that takes at most so many bytes, up to 65,536, and ends at a character. */
export function cutBytes(text: string, maxBytes: number): string {
  if (text.length * MAX_BYTES_PER_UNIT <= maxBytes) return text;
  const { read, written } = encoder.encodeInto(text, scratch.subarray(0, maxBytes));
  if (read === text.length) return text;
  // A slice would keep the whole text in memory.
  return Buffer.from(scratch.buffer, 0, written).toString();
}
