import type { LogLevel } from '../job/job-handler.js';
import type { JsonValue } from '../job/json.js';
import type { JobUpdate } from '../job/job-update.js';
import type { WatchedFrom, WatchedRun, WatchedState } from './job-states.sql.js';

/** A line or a chunk of output; neither if it could not be stored. */
interface OutputItem {
  n: number;
  at: number;
  level?: LogLevel;
  message?: string;
  chunk?: JsonValue;
}

/** The phases of a run that a watcher can have seen. */
const QUEUED = 0;
const RUNNING = 1;
const ENDED = 2;

/** The position of a watcher in a job, and the updates since then. */
export class JobUpdates {
  /** The run that was seen last; null: none yet, the newest is the first. */
  private retry: number | null = null;
  private phase = QUEUED;
  private seq = 0;
  private progressAt: string | null = null;
  private queued = '';
  private isKnown = false;
  /** The last update was an `end`. */
  isOver = false;

  constructor(
    private readonly identifier: string,
    after: string | undefined,
  ) {
    if (after === undefined) return;
    const parts = /^(\d{1,9})\.([012])\.(\d{1,9})$/.exec(String(after));
    // A browser sends back the last id of any event, an error of Nest's included: then start from the beginning.
    if (!parts) return;
    [this.retry, this.phase, this.seq] = parts.slice(1).map(Number) as [number, number, number];
  }

  get from(): WatchedFrom {
    const { identifier, retry, seq } = this;
    return { identifier, retry, seq };
  }

  /** Nothing of the job exists, and the watcher has seen nothing of it. */
  isUnknown({ entry, runs }: WatchedState): boolean {
    return !entry && runs.length === 0 && !this.isKnown;
  }

  /**
   * The last run whose end would be an update now: its last output may be written after its end. Null: no run ended, or
   * the watcher came when the job was over.
   */
  newlyEnded({ runs }: WatchedState): number | null {
    if (this.retry === null) return null;
    const ended = runs.filter(
      ({ retry, status }) => status === 'DONE' && !this.isPast(retry, ENDED),
    );
    return ended.at(-1)?.retry ?? null;
  }

  *updates({ entry, runs, more }: WatchedState): Generator<JobUpdate> {
    this.isKnown = true;
    const isNew = this.retry === null;
    for (const run of isNew ? runs.slice(-1) : runs) {
      if (this.advanceTo(run.retry)) yield* this.updatesOfRun(run, isNew);
      if (run.status !== 'DONE') continue;
      const ended = !this.isPast(run.retry, ENDED);
      this.phase = ENDED;
      if (entry || more || run !== runs.at(-1)) {
        if (ended && !isNew) yield { type: 'retry', ...this.endFacts(run) };
      } else {
        this.isOver = true;
        if (ended) yield { type: 'end', ...this.endFacts(run) };
      }
    }
    if (more) return;
    if (entry && entry.status !== 'RUNNING') {
      this.advanceTo(entry.retry);
      const { status, retry, runAtMs } = entry;
      const queued = `${retry} ${status} ${runAtMs}`;
      if (queued !== this.queued)
        yield {
          type: 'queued',
          id: `${retry}.${QUEUED}.0`,
          status,
          retry,
          runAt: new Date(runAtMs),
        };
      this.queued = queued;
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

  private *updatesOfRun(run: WatchedRun, isNew: boolean): Generator<JobUpdate> {
    const { id: jobRunId, retry } = run;
    const isNewlyRunning = !this.isPast(retry, RUNNING);
    if (isNewlyRunning) this.phase = RUNNING;
    if (isNewlyRunning && !(isNew && run.status === 'DONE'))
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
    for (const list of run.output ?? [])
      for (const item of JSON.parse(list) as OutputItem[]) {
        if (item.n <= this.seq) continue;
        const isGap = item.message === undefined && item.chunk === undefined;
        const missing = item.n - this.seq - (isGap ? 0 : 1);
        this.seq = item.n;
        const common = { id: this.id, jobRunId, retry };
        if (missing > 0) yield { type: 'gap', ...common, missing };
        const at = new Date(item.at);
        const { level, message, chunk } = item;
        if (chunk !== undefined) yield { type: 'stream', ...common, at, chunk };
        else if (message !== undefined)
          yield { type: 'log', ...common, at, level: level ?? 'log', message };
      }
  }

  /** @returns false for a run that the watcher is past */
  private advanceTo(retry: number): boolean {
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

  private endFacts({ id, retry, result, reason, endedAt }: WatchedRun) {
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

/** The state without runs that ended after this one: the next read has them. */
export function truncateAfter(last: number, state: WatchedState): WatchedState {
  const since = state.runs.findIndex(({ retry, status }) => retry > last && status === 'DONE');
  if (since < 0) return state;
  return { ...state, runs: state.runs.slice(0, since), more: true };
}

interface Progress {
  fraction: number;
  message: string | null;
}

const timeOf = (text: string | null) => (text === null ? null : new Date(text));
