import type { Violation } from './checker.js';
import type { RunRow } from './history.js';
import { grouped, type Timeline } from './timeline.js';

/** Runs that ended so cost no retry. */
const UNCOUNTED = ['Interrupted'];
/** Runs of nodes that were lost. */
const LOST = ['Expired', 'Crashed'];
/** The database's clock and that of the ledgers are read one after the other. */
const CLOCKS_MS = 20;
/** An entry goes after such a run although it failed, and had retries left. */
const FOR_GOOD = ['Cancelled', 'Crashed'];
/** `maxCrashes` of the workers: its default. */
const MAX_CRASHES = 3;

/** I1, I2, I3, I5 and I6: what became of each job. */
export function checkJobs(timeline: Timeline): Violation[] {
  const { runs, entries, orders, charges } = timeline.history;
  const found: Violation[] = [];
  const runsOf = grouped(runs, ({ identifier }) => identifier);
  const queued = new Map(entries.map((entry) => [entry.identifier, entry]));
  const ordered = new Set(orders);
  const endedAs = (outcome: string) =>
    new Set(
      timeline
        .all('landed')
        .filter((end) => end.outcome === outcome)
        .map(({ run }) => run),
    );
  const chargesOf = grouped(charges, ({ identifier }) => identifier);
  const expired = endedAs('expired');
  const surelyCounts = (run: RunRow) =>
    counts(run) && (!LOST.includes(run.reason ?? '') || expired.has(run.id));
  const cancelled = new Set(
    timeline
      .all('operated')
      .filter(({ deed }) => deed === 'cancel')
      .map(({ id }) => id),
  );
  const acked = new Set(timeline.all('ack').map(({ id }) => id));
  const returned = new Map(
    timeline
      .all('end')
      .filter(({ how }) => how === 'returned')
      .map(({ run, at }) => [run, at]),
  );

  for (const { id, maxRetries, transaction } of timeline.all('ask')) {
    const say = (invariant: Violation['invariant'], what: string) =>
      found.push({ invariant, what, id });
    const own = runsOf.get(id) ?? [];
    const entry = queued.get(id);
    const there = own.length > 0 || entry !== undefined;

    if (acked.has(id) && !there && !cancelled.has(id))
      say('I1', 'was acknowledged, and is neither in the queue nor in the history');
    if (new Set(own.map(({ entryId }) => entryId)).size > 1)
      say('I1', `has ${own.length} runs of more than one entry`);
    if (transaction === 'rollsBack' && (there || ordered.has(id)))
      say('I6', 'its transaction was rolled back, and it is there');
    if (transaction === 'commits' && ordered.has(id) && !there && !cancelled.has(id))
      say('I6', 'its transaction was committed, and it is not there');
    if (transaction === 'commits' && !ordered.has(id) && there)
      say('I6', 'it is there, and its transaction was not committed');

    if (entry) say('I2', `is still ${entry.status} in the queue`);
    for (const run of own)
      if (run.status !== 'DONE') say('I2', `run ${run.id} is still ${run.status}`);
    const last = own.at(-1);
    if (!entry && last?.result === 'FAILED') {
      const failures = own.filter(counts).length;
      if (failures <= maxRetries && !FOR_GOOD.includes(last.reason ?? '') && !cancelled.has(id))
        say('I2', `is gone after ${failures} failures of ${maxRetries + 1}, without an outcome`);
    }

    const successes = own.filter(({ result }) => result === 'SUCCEEDED');
    if (successes.length > 1)
      say('I3', `succeeded ${successes.length} times: runs ${ids(successes)}`);
    for (const run of successes) {
      const at = returned.get(run.id);
      if (at === undefined) say('I3', `run ${run.id} SUCCEEDED, and its handler did not return`);
      else if (at > run.endedAt! + CLOCKS_MS)
        say('I3', `run ${run.id} SUCCEEDED before its handler returned`);
      const later = own.filter(({ startedAt }) => startedAt > run.endedAt!);
      if (later.length > 0) say('I3', `runs ${ids(later)} began after run ${run.id} had SUCCEEDED`);
    }

    const failures = own.filter((run) => run.result === 'FAILED' && surelyCounts(run)).length;
    if (failures > maxRetries + 1)
      say('I5', `failed ${failures} times, with ${maxRetries} retries`);
    const charged = chargesOf.get(id)?.length ?? 0;
    if (charged > MAX_CRASHES)
      say('I5', `was charged with ${charged} lost nodes, of ${MAX_CRASHES} allowed`);
    if (charged < MAX_CRASHES && last?.reason === 'Crashed')
      say('I5', `failed for good after ${charged} lost nodes, of ${MAX_CRASHES} allowed`);
    const closes = timeline.all('close').length;
    const refunded = own.length - own.filter(counts).length;
    if (refunded > closes) say('I5', `was interrupted ${refunded} times by ${closes} shutdowns`);
  }
  return found;
}

/** What an Expired run costs, a retry or a crash, only who ended it says; he may be gone before he has. */
const counts = ({ reason }: RunRow) => !UNCOUNTED.includes(reason ?? '');
const ids = (runs: RunRow[]) => runs.map(({ id }) => id).join(', ');
