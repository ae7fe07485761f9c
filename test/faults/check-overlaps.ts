import type { Violation } from './checker.js';
import type { RunRow } from './history.js';
import { grouped, type Handling, type Timeline } from './timeline.js';
import { covered, touches } from './windows.js';

/** What a busy machine takes to get going again. */
const MOMENT_MS = 1_000;
/** An operator's stop leaves the process alone, and says so. */
const GOES_ON = 'Stopped';

/** I4: a job has one live run, and a lease that is alive is not taken for a dead one. */
export function checkOverlaps(timeline: Timeline): Violation[] {
  const { runs } = timeline.history;
  return [
    ...liveTogether(runs),
    ...handledTogether(timeline),
    ...overlong(timeline),
    ...expiredAlive(timeline),
  ];
}

/** By the engine's own tables. */
function liveTogether(runs: RunRow[]): Violation[] {
  return [...grouped(runs, ({ identifier }) => identifier)].flatMap(([id, own]) =>
    own.slice(1).flatMap((run, index): Violation[] => {
      const before = own[index]!;
      return before.endedAt === null || before.endedAt > run.startedAt
        ? [
            {
              invariant: 'I4',
              id,
              what: `run ${run.id} began before run ${before.id} had ended`,
            },
          ]
        : [];
    }),
  );
}

/**
 * By what the handlers did: of two at once the older may only be one whose run was closed before the younger
 * was claimed. (A handler may even start after that, on a node that was told late.)
 */
function handledTogether({ handlings, history }: Timeline): Violation[] {
  const rows = new Map(history.runs.map((run) => [run.id, run]));
  return [...grouped(handlings, ({ id }) => id)].flatMap(([id, own]) =>
    own.slice(1).flatMap((handling, index) =>
      own
        .slice(0, index + 1)
        .filter((other) => other.to > handling.from && open(other, handling))
        .map((other): Violation => ({
          invariant: 'I4',
          id,
          what: `run ${handling.run} was handled by ${handling.by} while ${other.by} had run ${other.run}${rows.has(other.run) ? '' : ', whose row is gone'}, and neither was closed`,
        })),
    ),
  );

  function open(one: Handling, other: Handling): boolean {
    if (one.run === other.run) return true;
    const ran = [one, other].flatMap(({ run }) => rows.get(run) ?? []);
    const [older, younger] = ran.toSorted((a, b) => a.startedAt - b.startedAt);
    // A claim that was given back took its run with it, and nobody had begun it.
    if (!older || !younger) return true;
    return older.endedAt === null || older.endedAt > younger.startedAt;
  }
}

/** A handler that heeds its signal is told soon after its run was closed. */
function overlong(timeline: Timeline): Violation[] {
  const { history, handlings } = timeline;
  const rows = new Map(history.runs.map((run) => [run.id, run]));
  const { fenceMs } = history.limits;
  return handlings.flatMap(({ id, run, by, cooperative, to }): Violation[] => {
    const row = rows.get(run);
    if (!cooperative || !row?.endedAt || row.reason === GOES_ON) return [];
    if (to - row.endedAt <= fenceMs) return [];
    const kept = covered([row.endedAt, to], timeline.disturbances(by, fenceMs / 2));
    const alone = to - row.endedAt - kept;
    return alone > fenceMs
      ? [
          {
            invariant: 'I4',
            id,
            what: `${by} went on with run ${run} for ${Math.round(alone)} ms after it was closed (${row.reason ?? row.result}), though nothing kept it from knowing`,
          },
        ]
      : [];
  });
}

function expiredAlive(timeline: Timeline): Violation[] {
  const { history, handlings } = timeline;
  const handledBy = new Map(handlings.map(({ run, by }) => [run, by]));
  const { leaseMs } = history.limits;
  return history.runs.flatMap(({ id, identifier, reason, endedAt, expiresAt }): Violation[] => {
    if (reason !== 'Expired' || endedAt === null) return [];
    if (expiresAt > endedAt + 1)
      return [
        {
          invariant: 'I4',
          id: identifier,
          what: `run ${id} expired ${Math.round(expiresAt - endedAt)} ms before its lease was over`,
        },
      ];
    const by = handledBy.get(id);
    // One that no process has heard of: the answer to its claim was lost.
    if (by === undefined) return [];
    // What kept it from renewing lies between the last renewal and the end of the lease.
    return touches(
      [expiresAt - leaseMs - MOMENT_MS, expiresAt],
      [...timeline.disturbances(by, MOMENT_MS), ...timeline.lockedWindows({ id: identifier })],
    )
      ? []
      : [
          {
            invariant: 'I4',
            id: identifier,
            what: `run ${id} expired on ${by}, which nothing disturbed`,
          },
        ];
  });
}
