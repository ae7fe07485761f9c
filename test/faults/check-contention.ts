import type { Violation } from './checker.js';
import { memberOf, type Timeline } from './timeline.js';
import { touches, type Window } from './windows.js';

/** Work that piled up in a disturbance is done by then. */
const SETTLED_MS = 4_000;
/** A node may notice this late that its database was away. */
const NOTICED_MS = 6_000;

/**
 * I16: while another transaction has rows locked or holds an old snapshot, and over a long link, all other jobs
 * are enqueued, started and recorded in time, and no node takes its database for lost.
 */
export function checkContention(timeline: Timeline): Violation[] {
  const jobs = askedJobs(timeline);
  return [
    ...enqueuedLate(timeline, jobs),
    ...startedLate(timeline, jobs),
    ...recordedLate(timeline, jobs),
    ...lostByMistake(timeline),
  ];
}

interface AskedJob {
  id: string;
  code: string;
  key?: string;
}

const askedJobs = (timeline: Timeline): Map<string, AskedJob> =>
  new Map(
    timeline
      .all('ask')
      .map(({ id, kind, key }) => [
        id,
        { id, code: kind.toUpperCase(), ...(key !== undefined && { key }) },
      ]),
  );

/** How long it may take a process: longer if its link is long. */
const allowedMs = (timeline: Timeline, ms: number, by: readonly string[], window: Window) =>
  by.some((one) => touches(window, timeline.longLinks(one)))
    ? ms + timeline.history.limits.distanceMs
    : ms;

const isLocked = (timeline: Timeline, job: AskedJob, window: Window) =>
  touches(window, timeline.lockedWindows(job));

function enqueuedLate(timeline: Timeline, jobs: Map<string, AskedJob>): Violation[] {
  const { enqueueMs } = timeline.history.limits;
  const disturbed = timeline.disturbancesOrStalls('client', SETTLED_MS);
  return [...timeline.all('ack'), ...timeline.all('unknown')].flatMap(
    ({ id, at, ms }): Violation[] => {
      const job = jobs.get(id);
      const window: Window = [at - ms, at];
      if (!job || ms <= allowedMs(timeline, enqueueMs, ['client'], window)) return [];
      if (touches(window, disturbed)) return [];
      if (isLocked(timeline, job, window)) return [];
      return [
        {
          invariant: 'I16',
          id,
          what: `enqueuing took ${Math.round(ms)} ms, though ${beside(timeline, window)}`,
        },
      ];
    },
  );
}

/** By the engine's own tables: a run begins soon after its job is due, wherever there is a worker. */
function startedLate(timeline: Timeline, jobs: Map<string, AskedJob>): Violation[] {
  const { runs, limits } = timeline.history;
  const spawns = timeline.all('spawn');
  const workers = new Set(spawns.map(({ worker }) => memberOf(worker)));
  // With all workers well there are enough slots for all that is due.
  const disturbed = [...workers].flatMap((worker) =>
    timeline.disturbancesOrStalls(worker, SETTLED_MS),
  );
  const acked = new Map(timeline.all('ack').map(({ id, at }) => [id, at]));
  const unhandled = new Set(spawns.flatMap(({ missing }) => missing?.toUpperCase() ?? []));
  const calm = timeline.all('calm')[0]?.at ?? Infinity;
  return runs.flatMap(({ id, identifier, retry, availableAt, startedAt }): Violation[] => {
    const job = jobs.get(identifier);
    // A job may be due long before its transaction commits.
    const due =
      retry === 0 ? Math.max(availableAt, acked.get(identifier) ?? Infinity) : availableAt;
    const window: Window = [due, startedAt];
    // After the last heal there is more to do at once than there are slots.
    if (!job || startedAt > calm) return [];
    if (startedAt - due <= allowedMs(timeline, limits.startMs, [...workers], window)) return [];
    if (unhandled.has(job.code) || touches(window, disturbed)) return [];
    if (isLocked(timeline, job, window)) return [];
    return [
      {
        invariant: 'I16',
        id: identifier,
        what: `run ${id} began ${Math.round(startedAt - due)} ms after it was due, though ${beside(timeline, window)}`,
      },
    ];
  });
}

/** By the ledgers: from the end of a handler to the event that says its run has ended. */
function recordedLate(timeline: Timeline, jobs: Map<string, AskedJob>): Violation[] {
  const { finishMs } = timeline.history.limits;
  const landed = new Map(timeline.all('landed').map(({ by, run, at }) => [`${by} ${run}`, at]));
  return timeline.handlings.flatMap(({ id, run, by, to, how }): Violation[] => {
    const at = landed.get(`${by} ${run}`);
    const job = jobs.get(id);
    if (!job || how === 'cut' || at === undefined) return [];
    const window: Window = [to, at];
    if (at - to <= allowedMs(timeline, finishMs, [by], window)) return [];
    if (touches(window, timeline.disturbancesOrStalls(by, SETTLED_MS))) return [];
    if (isLocked(timeline, job, window)) return [];
    return [
      {
        invariant: 'I16',
        id,
        what: `the end of run ${run} was recorded ${Math.round(at - to)} ms after its handler had ended, though ${beside(timeline, window)}`,
      },
    ];
  });
}

function lostByMistake(timeline: Timeline): Violation[] {
  return timeline
    .all('databaseLost')
    .filter(({ at, by }) => !touches([at - NOTICED_MS, at], timeline.disturbancesOrStalls(by, 0)))
    .map(({ at, by, error }) => ({
      invariant: 'I16',
      what: `${by} took its database for lost (${error}), though ${beside(timeline, [at - NOTICED_MS, at])}`,
    }));
}

/** What there was at the time. */
function beside(timeline: Timeline, window: Window): string {
  const kinds = timeline.contention
    .filter((one) => touches(window, [one.window]))
    .map(({ kind }) => kind);
  return kinds.length > 0
    ? `nothing of its own was in its way (${[...new Set(kinds)].join(', ')})`
    : 'nothing was in its way';
}
