import { WakeablePause } from '../concurrency/wakeable-pause.js';
import { WriteBatcher } from '../concurrency/write-batcher.js';
import { isUnanswered } from '../database/connection/connection-errors.js';
import type { EngineContext } from '../database/engine-context.js';
import type { JobRun } from '../database/entities/index.js';
import { JobNotFoundError, WaitTimeoutError } from '../job/errors.js';
import type { NotificationBus } from '../notifications/notification-bus.js';
import { JobSignals } from './job-signals.js';
import { jobStates, type JobState } from './job-states.sql.js';

/** A short job may end before its node learns of the waiter. */
const FIRST_POLL_MS = 10;
const MAX_POLL_MS = 1_000;
const BATCH_SIZE = 500;
const MAX_REMOTE_WAITS = 100_000;
const REMOVED_MESSAGE = 'it was cancelled or removed from the queue during the wait';

/**
 * Waits until jobs are over, whatever node runs them: woken by an event of this node or a notification of another one,
 * and by polling in any case. However many callers wait, a process reads their jobs with one statement at a time.
 */
export class JobWaiter {
  private readonly signals: JobSignals;
  private readonly reads: WriteBatcher<string, JobState>;

  constructor(
    private readonly engine: EngineContext,
    bus: NotificationBus,
  ) {
    const { store, events } = engine;
    this.reads = new WriteBatcher({
      maxItems: BATCH_SIZE,
      bytesOf: ({ length }) => length,
      write: (identifiers) => jobStates(store.db, store.tables, identifiers),
    });
    this.signals = new JobSignals(bus, {
      topic: 'completed',
      doing: 'notifying nodes that wait for jobs',
      maxInterest: MAX_REMOTE_WAITS,
      subscribe: () =>
        events.on('run.finished', ({ jobRunIdentifier, entry }) => {
          if (entry !== 'reopened') this.signals.signal(jobRunIdentifier, { isLast: true });
        }),
    });
  }

  /** @throws JobNotFoundError, WaitTimeoutError */
  async waitForRun(identifier: string, timeoutMs: number): Promise<JobRun> {
    const giveUpAt = performance.now() + timeoutMs;
    const pause = new WakeablePause();
    const removeCaller = this.signals.add(identifier, pause.wake);
    let unsubscribe: (() => void) | undefined;
    let pollMs = FIRST_POLL_MS;
    let wasFound = false;
    try {
      for (;;) {
        pause.reset();
        const state = await this.read(identifier);
        if (state === null)
          throw new JobNotFoundError(identifier, wasFound ? REMOVED_MESSAGE : undefined);
        wasFound = true;
        if (typeof state === 'object' && state.status === 'DONE') return state;
        const leftMs = giveUpAt - performance.now();
        if (leftMs <= 0) throw new WaitTimeoutError(identifier, timeoutMs);
        unsubscribe ??= this.signals.subscribeToOthers(identifier);
        await pause.sleep(Math.min(pollMs, leftMs));
        pollMs = Math.min(pollMs * 1.5, MAX_POLL_MS);
      }
    } finally {
      removeCaller();
      unsubscribe?.();
    }
  }

  private async read(identifier: string): Promise<JobState | 'unknown'> {
    try {
      return await this.reads.add(identifier);
    } catch (error) {
      // The connection may be back in time.
      if (isUnanswered(error) && !this.engine.store.db.isClosed) return 'unknown';
      throw error;
    }
  }
}
