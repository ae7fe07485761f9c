import { setTimeout as pause } from 'node:timers/promises';
import { WriteBatcher } from '../concurrency/write-batcher.js';
import type { Store } from '../database/store.js';
import { JobNotFoundError } from '../job/errors.js';
import type { JobUpdate } from '../job/job-update.js';
import { ConnectionLostError } from '../database/connection/connection-errors.js';
import { watchedStates, type WatchedFrom, type WatchedState } from './watch.sql.js';
import { JobUpdates, upTo } from './job-updates.js';

const FIRST_POLL_MS = 50;
/** Nodes that came meanwhile, or could not hear, are told again. */
const SAY_EVERY_MS = 5_000;
/** What a run said last may be written as long after its end: a tenth of a second after what was written before, and that takes time. */
const LAST_WORDS_MS = 300;
const TOGETHER = 100;

/** Who knows when there is something new. */
interface Watchers {
  watch(identifier: string, wake: () => void): () => void;
  sayWatched(identifier: string): void;
}

export interface Watching {
  signal?: AbortSignal | undefined;
  after?: string | undefined;
  pollMs: number;
}

/**
 * Watching jobs, whatever node runs them: the database is looked at whenever somebody says that there is something new,
 * and now and then in any case. However many watch, a process looks with one statement at a time.
 */
export class Watches {
  private readonly stopped = new AbortController();
  private readonly leaving = new Set<() => void>();
  private readonly looks = new WriteBatcher<WatchedFrom, WatchedState>({
    maxItems: TOGETHER,
    bytesOf: ({ identifier }) => identifier.length,
    write: (watched) => watchedStates(this.store.db, this.store.tables, watched),
  });

  constructor(
    private readonly store: Store,
    private readonly watchers: Watchers,
  ) {}

  /** Ends all watching: the loops end without an `end`. */
  stop(): void {
    this.stopped.abort();
    for (const leave of this.leaving) leave();
  }

  /** Begins when it is asked for its first; what it holds is let go when it ends, or its loop is left. @throws BildadConfigError */
  watch(identifier: string, watching: Watching): AsyncGenerator<JobUpdate> {
    const left = new AbortController();
    const seen = new JobUpdates(identifier, watching.after);
    const updates = this.follow(identifier, seen, watching, left);
    // Of a generator, `return` waits for a `next` that is under way.
    const end = updates.return.bind(updates);
    updates.return = (value) => {
      left.abort();
      return end(value);
    };
    return updates;
  }

  private async *follow(
    identifier: string,
    seen: JobUpdates,
    { signal, pollMs }: Watching,
    left: AbortController,
  ): AsyncGenerator<JobUpdate> {
    signal?.throwIfAborted();
    const isOver = () => left.signal.aborted || this.stopped.signal.aborted;
    let wake = new AbortController();
    const lastWords = async () => {
      const until = performance.now() + LAST_WORDS_MS;
      for (let ms = LAST_WORDS_MS; ms > 0; ms = until - performance.now()) {
        if (isOver() || signal?.aborted) return;
        wake = new AbortController();
        await pause(ms, undefined, { signal: wake.signal }).catch(() => undefined);
      }
    };
    const wakeUp = () => wake.abort();
    const stopWatching = this.watchers.watch(identifier, wakeUp);
    signal?.addEventListener('abort', wakeUp);
    left.signal.addEventListener('abort', wakeUp);
    this.leaving.add(wakeUp);
    let sayAt = 0;
    let poll = FIRST_POLL_MS;
    try {
      while (!isOver()) {
        const now = performance.now();
        if (now >= sayAt) {
          sayAt = now + SAY_EVERY_MS;
          this.watchers.sayWatched(identifier);
        }
        wake = new AbortController();
        let state = await this.look(seen.from);
        const ended = state === 'away' ? null : seen.newlyEnded(state);
        if (ended !== null) {
          await lastWords();
          state = await this.look(seen.from);
          if (state !== 'away') state = upTo(ended, state);
        }
        if (state !== 'away' && seen.isUnknown(state)) state = await this.known(state, seen.from);
        if (state !== 'away') {
          for (const update of seen.take(state)) {
            signal?.throwIfAborted();
            if (isOver()) return;
            poll = FIRST_POLL_MS;
            yield update;
          }
          if (seen.over) return;
        }
        signal?.throwIfAborted();
        if (isOver()) return;
        await pause(this.nextLook(poll, pollMs), undefined, {
          signal: wake.signal,
        }).catch(() => undefined);
        signal?.throwIfAborted();
        poll = Math.min(poll * 2, pollMs);
      }
    } finally {
      stopWatching();
      signal?.removeEventListener('abort', wakeUp);
      this.leaving.delete(wakeUp);
    }
  }

  /** Behind `after` there may be nothing any more of a job that the history has. @throws JobNotFoundError */
  private async known(
    state: WatchedState,
    { identifier, retry }: WatchedFrom,
  ): Promise<WatchedState | 'away'> {
    if (retry === null) throw new JobNotFoundError(identifier);
    const whole = await this.look({ identifier, retry: null, seq: 0 });
    if (whole === 'away') return whole;
    if (!whole.entry && whole.runs.length === 0) throw new JobNotFoundError(identifier);
    // It was enqueued in between: the next look has it.
    return whole.entry ? 'away' : state;
  }

  /** Those who look rarely look at the same time, and with one statement. */
  private nextLook(poll: number, pollMs: number): number {
    return poll < pollMs ? poll : pollMs - (performance.now() % pollMs);
  }

  private async look(from: WatchedFrom): Promise<WatchedState | 'away'> {
    try {
      return await this.looks.add(from);
    } catch (error) {
      if (error instanceof ConnectionLostError && !this.store.db.isClosed) return 'away';
      if (this.stopped.signal.aborted) return 'away';
      throw error;
    }
  }
}
