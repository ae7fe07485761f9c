import type { LogLevel } from '../job/job-execution.js';
import type { JsonValue } from '../job/json.js';
import type { JobUpdate } from '../job/job-update.js';
import type { WatchedFrom, WatchedRun, WatchedState } from './job-states.sql.js';

/** What stands on a tape: its number, its time, and a line or a chunk; neither where that could not be kept. */
export interface TapeItem {
  n: number;
  at: number;
  level?: LogLevel;
  message?: string;
  chunk?: JsonValue;
}

/** Of a run: it is waited for, it is under way, it has ended. */
const QUEUED = 0;
const BEGUN = 1;
const ENDED = 2;

/** How far one who watches has seen a job, and what is new to him. */
export class JobUpdates {
  /** The run that he has come to; null: the newest there is. */
  private retry: number | null = null;
  private phase = QUEUED;
  private seq = 0;
  private progressAt: string | null = null;
  private queued = '';
  private seen = false;
  private isOver = false;

  constructor(
    private readonly identifier: string,
    after: string | undefined,
  ) {
    if (after === undefined) return;
    const parts = /^(\d{1,9})\.([012])\.(\d{1,9})$/.exec(String(after));
    // A browser sends back whatever id it had last, of an error of Nest's as well: from the start then.
    if (!parts) return;
    [this.retry, this.phase, this.seq] = parts.slice(1).map(Number) as [number, number, number];
  }

  get from(): WatchedFrom {
    const { identifier, retry, seq } = this;
    return { identifier, retry, seq };
  }

  get over(): boolean {
    return this.isOver;
  }

  /** There is nothing of it, and never was for all he has seen here. */
  isUnknown({ entry, runs }: WatchedState): boolean {
    return !entry && runs.length === 0 && !this.seen;
  }

  /**
   * The last run whose end is to be told now: what it said last may be written only after that. Null: there is none, or he
   * comes when it is all over.
   */
  newlyEnded({ runs }: WatchedState): number | null {
    if (this.retry === null) return null;
    const ended = runs.filter(
      ({ retry, status }) => status === 'DONE' && !this.isPast(retry, ENDED),
    );
    return ended.at(-1)?.retry ?? null;
  }

  *take({ entry, runs, more }: WatchedState): Generator<JobUpdate> {
    this.seen = true;
    const isNew = this.retry === null;
    for (const run of isNew ? runs.slice(-1) : runs) {
      if (this.comeTo(run.retry)) yield* this.ofRun(run, isNew);
      if (run.status !== 'DONE') continue;
      const ended = !this.isPast(run.retry, ENDED);
      this.phase = ENDED;
      if (entry || more || run !== runs.at(-1)) {
        if (ended && !isNew) yield { type: 'retry', ...this.endOf(run) };
      } else {
        this.isOver = true;
        if (ended) yield { type: 'end', ...this.endOf(run) };
      }
    }
    if (more) return;
    if (entry && entry.status !== 'RUNNING') {
      this.comeTo(entry.retry);
      const { status, retry, runAtMs } = entry;
      const what = `${retry} ${status} ${runAtMs}`;
      if (what !== this.queued)
        yield {
          type: 'queued',
          id: `${retry}.${QUEUED}.0`,
          status,
          retry,
          runAt: new Date(runAtMs),
        };
      this.queued = what;
    } else if (!entry && runs.length === 0) {
      this.isOver = true;
      yield {
        type: 'end',
        id: `${this.retry ?? 0}.${ENDED}.${this.seq}`,
        jobRunId: null,
        retry: this.retry ?? 0,
        result: null,
        reason: 'Removed from the queue',
        endedAt: null,
      };
    }
  }

  private *ofRun(run: WatchedRun, isNew: boolean): Generator<JobUpdate> {
    const { id: jobRunId, retry } = run;
    const begun = !this.isPast(retry, BEGUN);
    if (begun) this.phase = BEGUN;
    if (begun && !(isNew && run.status === 'DONE'))
      yield {
        type: 'running',
        id: this.id,
        jobRunId,
        retry,
        startedAt: timeOf(run.startedAt),
      };
    if (run.progress !== null && run.progressAt !== this.progressAt) {
      this.progressAt = run.progressAt;
      const { fraction, message } = JSON.parse(run.progress) as Progress;
      const at = timeOf(run.progressAt)!;
      const { id } = this;
      yield { type: 'progress', id, jobRunId, retry, fraction, message, at };
    }
    for (const piece of run.tape ?? [])
      for (const item of JSON.parse(piece) as TapeItem[]) {
        if (item.n <= this.seq) continue;
        const unsaid = item.message === undefined && item.chunk === undefined;
        const missing = item.n - this.seq - (unsaid ? 0 : 1);
        this.seq = item.n;
        const said = { id: this.id, jobRunId, retry };
        if (missing > 0) yield { type: 'gap', ...said, missing };
        const at = new Date(item.at);
        const { level, message, chunk } = item;
        if (chunk !== undefined) yield { type: 'stream', ...said, at, chunk };
        else if (message !== undefined)
          yield { type: 'log', ...said, at, level: level ?? 'log', message };
      }
  }

  /** @returns whether it is no run of before */
  private comeTo(retry: number): boolean {
    if (this.retry !== null && retry <= this.retry) return retry === this.retry;
    this.retry = retry;
    this.phase = QUEUED;
    this.seq = 0;
    this.progressAt = null;
    return true;
  }

  private isPast(retry: number, phase: number): boolean {
    if (this.retry !== retry) return this.retry! > retry;
    return this.phase >= phase;
  }

  private get id(): string {
    return `${this.retry}.${this.phase}.${this.seq}`;
  }

  private endOf({ id, retry, result, reason, endedAt }: WatchedRun) {
    return {
      id: this.id,
      jobRunId: id,
      retry,
      result,
      reason,
      endedAt: timeOf(endedAt),
    };
  }
}

/** Without runs that have ended since this one: the next look has them. */
export function upTo(last: number, state: WatchedState): WatchedState {
  const since = state.runs.findIndex(({ retry, status }) => retry > last && status === 'DONE');
  if (since < 0) return state;
  return { ...state, runs: state.runs.slice(0, since), more: true };
}

interface Progress {
  fraction: number;
  message: string | null;
}

const timeOf = (text: string | null) => (text === null ? null : new Date(text));
