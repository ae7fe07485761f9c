import type { Violation } from './checker.js';
import { grouped, memberOf, type Timeline } from './timeline.js';
import { covered, touches, union } from './windows.js';

/** With fewer, chance may make them alike. */
const ENOUGH_PAUSES = 8;

/** I7, I8, I12 and the jitter: what is due happens in time. */
export function checkLiveness(timeline: Timeline): Violation[] {
  return [
    ...rescuedLate(timeline),
    ...idleAfterwards(timeline),
    ...unanswered(timeline),
    ...inStep(timeline),
  ];
}

/** A lease that is over is noticed soon, on nodes that nothing keeps from it. */
function rescuedLate(timeline: Timeline): Violation[] {
  const { runs, limits } = timeline.history;
  const twoBeats = (2 * limits.leaseMs) / 5;
  const excused = union([
    ...timeline.nobodyWell(twoBeats + limits.tickMs),
    ...timeline.database.map(([from, to]) => [from, to + twoBeats + limits.tickMs] as const),
    ...timeline.guardStuck(limits.guardStuckMs),
  ]);
  return runs.flatMap(({ id, identifier, reason, endedAt, expiresAt }) => {
    if (reason !== 'Expired' || endedAt === null) return [];
    // A run that another transaction has locked is left to the next pass.
    const locked = timeline.lockedWindows({ id: identifier });
    const late = endedAt - expiresAt - covered([expiresAt, endedAt], [...excused, ...locked]);
    return late > limits.rescueMs
      ? [
          {
            invariant: 'I7' as const,
            id: identifier,
            what: `the lease of run ${id} was over for ${Math.round(late)} ms before that was noticed`,
          },
        ]
      : [];
  });
}

/** After the last heal every worker has something to do, and does it. */
function idleAfterwards(timeline: Timeline): Violation[] {
  const [calm] = timeline.all('calm');
  if (!calm) return [];
  const { firstStartMs } = timeline.history.limits;
  const found: Violation[] = timeline
    .all('drained')
    .filter(({ left }) => left > 0)
    .map(({ left, ms }) => ({
      invariant: 'I8',
      what: `${left} entries were left ${Math.round(ms)} ms after the last heal`,
    }));
  // A handler that blocks its process may outlast all else there is to do; then the end of what it did there lands.
  const handled = new Set(timeline.handlings.map(({ by, run }) => by + run));
  const signs = [
    ...timeline.handlings.map(({ by, from }) => ({ by, at: from })),
    ...timeline.all('landed').filter(({ by, run }) => handled.has(by + run)),
  ]
    .filter(({ at }) => at > calm.at)
    .toSorted((a, b) => a.at - b.at);
  const workers = new Set(
    timeline
      .all('spawn')
      .map(({ worker }) => memberOf(worker))
      .filter((name) => name !== 'client'),
  );
  for (const worker of workers) {
    const first = signs.find(({ by }) => memberOf(by) === worker);
    const ms = first ? first.at - calm.at : Infinity;
    if (ms > firstStartMs)
      found.push({
        invariant: 'I8',
        what: first
          ? `${worker} began to work ${Math.round(ms)} ms after the last heal`
          : `${worker} did nothing after the last heal`,
      });
  }
  return found;
}

/** A call is answered, if only with an error, as long as nothing is in its way. */
function unanswered(timeline: Timeline): Violation[] {
  const disturbed = timeline.disturbances('client', 1_000);
  return timeline
    .all('unknown')
    .filter(
      ({ at, ms, error }) => error?.startsWith('no answer') && !touches([at - ms, at], disturbed),
    )
    .map(({ id, ms }) => ({
      invariant: 'I12',
      id,
      what: `enqueuing had no answer for ${Math.round(ms)} ms, though nothing was in its way`,
    }));
}

/** Jobs that failed together do not come back together: their pauses differ. */
function inStep({ history }: Timeline): Violation[] {
  const pauses: { retry: string; ms: number }[] = [];
  for (const own of grouped(history.runs, (run) => run.identifier).values())
    for (const [index, run] of own.slice(0, -1).entries()) {
      const ms = own[index + 1]!.availableAt - (run.endedAt ?? Infinity);
      // No pause after what was stopped or interrupted.
      if (ms > 1) pauses.push({ retry: String(run.retry), ms });
    }
  return [...grouped(pauses, ({ retry }) => retry)].flatMap(([retry, alike]): Violation[] => {
    if (alike.length < ENOUGH_PAUSES) return [];
    const times = alike.map(({ ms }) => ms).toSorted((a, b) => a - b);
    const longest = times.at(-1)!;
    return longest - times[0]! > longest / 50
      ? []
      : [
          {
            invariant: 'jitter',
            what: `${alike.length} pauses after run number ${retry} were all of ${Math.round(longest)} ms`,
          },
        ];
  });
}
