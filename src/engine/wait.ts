import { setTimeout as pause } from 'node:timers/promises';
import type { Store } from '../life/store.js';
import { JobNotFoundError, WaitTimeoutError } from '../model/errors.js';
import type { JobEvents } from '../model/events.js';
import type { JobRun } from '../store/entities/index.js';
import { ConnectionLostError } from '../store/connection/lost.js';
import { findEntry, findLastRun } from '../store/run.store.js';

const FIRST_POLL_MS = 50;
const LONGEST_POLL_MS = 1_000;

/**
 * The final run of a job, whatever node runs it: told by an event where it runs here, by polling
 * where it does not. @throws JobNotFoundError, WaitTimeoutError
 */
export async function waitForFinalRun(
  { db, tables }: Store,
  events: JobEvents,
  jobRunIdentifier: string,
  timeoutMs: number,
): Promise<JobRun> {
  const look = async () => {
    try {
      // The entry first: it goes in the same statement that ends its last run.
      const entry = await findEntry(db, tables, { jobRunIdentifier });
      const run = entry
        ? null
        : await findLastRun(db, tables, jobRunIdentifier);
      return { entry, run };
    } catch (error) {
      // It may be back in time.
      if (error instanceof ConnectionLostError && !db.isClosed)
        return { away: true };
      throw error;
    }
  };
  const giveUpAt = performance.now() + timeoutMs;
  let wake = new AbortController();
  const unsubscribe = events.on('run.finished', (event) => {
    if (event.jobRunIdentifier === jobRunIdentifier) wake.abort();
  });
  try {
    for (
      let poll = FIRST_POLL_MS;
      ;
      poll = Math.min(poll * 1.5, LONGEST_POLL_MS)
    ) {
      wake = new AbortController();
      const { entry, run, away } = await look();
      if (run?.status === 'DONE') return run;
      if (!entry && !run && !away) throw new JobNotFoundError(jobRunIdentifier);
      const left = giveUpAt - performance.now();
      if (left <= 0) throw new WaitTimeoutError(jobRunIdentifier, timeoutMs);
      await pause(Math.min(poll, left), undefined, {
        signal: wake.signal,
      }).catch(() => undefined);
    }
  } finally {
    unsubscribe();
  }
}
