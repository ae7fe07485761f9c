import { WakeablePause } from '../concurrency/wakeable-pause.js';
import { WriteBatcher } from '../concurrency/write-batcher.js';
import { isUnanswered } from '../database/connection/connection-errors.js';
import type { EngineContext } from '../database/engine-context.js';
import { JobNotFoundError } from '../job/errors.js';
import type { JobUpdate } from '../job/job-update.js';
import type { NotificationBus } from '../notifications/notification-bus.js';
import { JobSignals } from './job-signals.js';
import { watchedStates, type WatchedFrom, type WatchedState } from './job-states.sql.js';
import { JobUpdates, truncateAfter } from './job-updates.js';

const FIRST_POLL_MS = 50;
/** The last output of a run may be written this long after its end: 0.1 s after the previous write, plus the write itself. */
const LAST_OUTPUT_MS = 300;
const BATCH_SIZE = 100;
const MAX_REMOTE_WATCHES = 10_000;

export interface WatchOptions {
  signal?: AbortSignal | undefined;
  after?: string | undefined;
  pollMs: number;
}

/**
 * Watches jobs, whatever node runs them: reads the database at each signal of a change, and at intervals.
 * However many callers watch, a process reads their jobs with one statement at a time.
 */
export class JobWatcher {
  private readonly stopped = new AbortController();
  private readonly pauses = new Set<WakeablePause>();
  private readonly watchedListeners: ((identifier: string) => void)[] = [];
  private readonly signals: JobSignals;
  private readonly reads: WriteBatcher<WatchedFrom, WatchedState>;

  constructor(
    private readonly engine: EngineContext,
    bus: NotificationBus,
  ) {
    const { store, events } = engine;
    this.reads = new WriteBatcher({
      maxItems: BATCH_SIZE,
      bytesOf: ({ identifier }) => identifier.length,
      write: (watched) => watchedStates(store.db, store.tables, watched),
    });
    const signalRun = ({ jobRunIdentifier }: { jobRunIdentifier: string }) =>
      this.signalChange(jobRunIdentifier);
    this.signals = new JobSignals(bus, {
      topic: 'changed',
      doing: 'notifying nodes that watch jobs',
      maxInterest: MAX_REMOTE_WATCHES,
      subscribe: () => {
        const offs = [events.on('run.started', signalRun), events.on('run.finished', signalRun)];
        return () => offs.forEach((off) => off());
      },
      onWanted: (identifier) => this.watchedListeners.forEach((listener) => listener(identifier)),
    });
    bus.onStop(() => this.stop());
  }

  /** Whether a caller, on this node or another, watches the job. */
  isWatched(identifier: string): boolean {
    return this.signals.isWanted(identifier);
  }

  /** @param listener called when a caller begins to watch a job, and repeatedly while callers watch it */
  onWatched(listener: (identifier: string) => void): void {
    this.watchedListeners.push(listener);
  }

  /** Tells watchers to read the job again. */
  signalChange(identifier: string): void {
    this.signals.signal(identifier);
  }

  /** Reads nothing before the first `next`. Releases its resources when it ends or its loop is left. */
  watch(identifier: string, options: WatchOptions): AsyncGenerator<JobUpdate> {
    const left = new AbortController();
    const updates = this.follow(identifier, options, left.signal);
    // A generator's own `return` waits for a pending `next`.
    const end = updates.return.bind(updates);
    updates.return = (value) => {
      left.abort();
      return end(value);
    };
    return updates;
  }

  /** Ends all options: the loops end without an `end`. */
  private stop(): void {
    this.stopped.abort();
    for (const pause of this.pauses) pause.wake();
  }

  private async *follow(
    identifier: string,
    { signal, after, pollMs: maxPollMs }: WatchOptions,
    left: AbortSignal,
  ): AsyncGenerator<JobUpdate> {
    signal?.throwIfAborted();
    const isOver = () => left.aborted || this.stopped.signal.aborted;
    const seen = new JobUpdates(identifier, after);
    const pause = new WakeablePause();
    const release = this.subscribe(identifier, pause, signal, left);
    let pollMs = FIRST_POLL_MS;
    try {
      while (!isOver()) {
        pause.reset();
        let state = await this.read(seen.from);
        const ended = state && seen.newlyEnded(state);
        if (ended !== null) {
          const until = performance.now() + LAST_OUTPUT_MS;
          while (performance.now() < until) {
            if (isOver() || signal?.aborted) break;
            pause.reset();
            await pause.sleep(until - performance.now());
          }
          state = await this.read(seen.from);
          if (state) state = truncateAfter(ended, state);
        }
        if (state && seen.isUnknown(state)) state = await this.readUnknown(state, seen.from);
        if (state) {
          for (const update of seen.updates(state)) {
            signal?.throwIfAborted();
            if (isOver()) return;
            pollMs = FIRST_POLL_MS;
            yield update;
          }
          if (seen.isOver) return;
        }
        signal?.throwIfAborted();
        if (isOver()) return;
        await pause.sleep(nextPollMs(pollMs, maxPollMs));
        signal?.throwIfAborted();
        pollMs = Math.min(pollMs * 2, maxPollMs);
      }
    } finally {
      release();
    }
  }

  /** Wakes the pause at a signal, an abort or a stop. @returns a function that ends this */
  private subscribe(
    identifier: string,
    pause: WakeablePause,
    signal: AbortSignal | undefined,
    left: AbortSignal,
  ): () => void {
    const removeCaller = this.signals.add(identifier, pause.wake);
    const unsubscribe = this.signals.subscribeToOthers(identifier);
    signal?.addEventListener('abort', pause.wake);
    left.addEventListener('abort', pause.wake);
    this.pauses.add(pause);
    return () => {
      removeCaller();
      unsubscribe();
      signal?.removeEventListener('abort', pause.wake);
      this.pauses.delete(pause);
    };
  }

  /**
   * Reads a job that has no rows after `after`.
   * @returns the state; null if the job was enqueued meanwhile @throws JobNotFoundError
   */
  private async readUnknown(
    state: WatchedState,
    { identifier, retry }: WatchedFrom,
  ): Promise<WatchedState | null> {
    if (retry === null) throw new JobNotFoundError(identifier);
    const whole = await this.read({ identifier, retry: null, seq: 0 });
    if (whole && !whole.entry && whole.runs.length === 0) throw new JobNotFoundError(identifier);
    return whole && !whole.entry ? state : null;
  }

  /** @returns null while the database is unreachable */
  private async read(from: WatchedFrom): Promise<WatchedState | null> {
    try {
      return await this.reads.add(from);
    } catch (error) {
      if (isUnanswered(error) && !this.engine.store.db.isClosed) return null;
      if (this.stopped.signal.aborted) return null;
      throw error;
    }
  }
}

/** Callers that poll rarely poll at the same time, with one statement. */
const nextPollMs = (pollMs: number, maxPollMs: number) =>
  pollMs < maxPollMs ? pollMs : maxPollMs - (performance.now() % maxPollMs);
