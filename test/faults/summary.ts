import type { Round } from './round.js';
import { Timeline } from './timeline.js';

const NETWORK = [
  'blackhole',
  'blackholeEstablished',
  'dropAnswers',
  'refuse',
  'reset',
  'halfClose',
  'cut',
];

/** What a round was like, in numbers. Lists are turned into figures when all rounds are over. */
export interface Figures {
  jobs: number;
  runs: number;
  succeeded: number;
  failed: number;
  /** Jobs that were to succeed, and used up their retries under the faults. */
  exhausted: number;
  kills: number;
  poisoned: number;
  freezes: number;
  deploys: number;
  restarts: number;
  crashes: number;
  partitions: number;
  /** From the death of a process to the moment at which its run was closed. */
  rescues: number[];
  expired: number;
  interrupted: number;
  /** Ends that came too late, and changed nothing. */
  fencedEnds: number;
  enqueues: number[];
  unknownEnqueues: number;
  guardTerms: number;
  guardStuckMs: number;
  deadlocks: number;
  drainMs: number;
  closes: number[];
}

const SHOULD_FAIL = ['failing', 'deaf', 'poison', 'blocking'];

export function figures(round: Round): Figures {
  const { history, deadlocks, drainMs } = round;
  const { runs } = history;
  const timeline = new Timeline(history);
  const done = (kind: string) => timeline.all('heal').filter((heal) => heal.kind === kind).length;
  const kindOf = new Map(timeline.all('ask').map(({ id, kind }) => [id, kind]));
  const lastRuns = new Map(runs.map((run) => [run.identifier, run]));
  const deaths = [...timeline.exits.values()].filter(({ cause }) => cause !== 'terminated');
  const rows = new Map(runs.map((run) => [run.id, run]));
  const rescues = timeline.handlings.flatMap(({ run, by, how }) => {
    const row = rows.get(run);
    const death = deaths.find(({ worker }) => worker === by);
    return how === 'cut' && death && row?.endedAt ? [Math.round(row.endedAt - death.at)] : [];
  });
  const stuck = timeline.guardStuck(history.limits.guardStuckMs);
  return {
    jobs: new Set(timeline.all('ask').map(({ id }) => id)).size,
    runs: runs.length,
    succeeded: runs.filter(({ result }) => result === 'SUCCEEDED').length,
    failed: runs.filter(({ result }) => result === 'FAILED').length,
    exhausted: [...lastRuns.values()].filter(
      ({ identifier, result, reason }) =>
        result === 'FAILED' &&
        reason !== 'Cancelled' &&
        !SHOULD_FAIL.includes(kindOf.get(identifier) ?? ''),
    ).length,
    kills: done('kill'),
    poisoned: deaths.filter(({ cause }) => cause === 'poison').length,
    freezes: done('freeze'),
    deploys: done('deploy'),
    restarts: done('restart') + done('crash'),
    crashes: done('crash'),
    partitions: NETWORK.reduce((sum, kind) => sum + done(kind), 0),
    rescues,
    expired: runs.filter(({ reason }) => reason === 'Expired').length,
    interrupted: runs.filter(({ reason }) => reason === 'Interrupted').length,
    fencedEnds: timeline.all('lost').length,
    enqueues: timeline.all('ack').map(({ ms }) => Math.round(ms)),
    unknownEnqueues: timeline.all('unknown').length,
    guardTerms: history.guard.at(-1)?.term ?? 0,
    guardStuckMs: Math.round(Math.max(0, ...stuck.map(([a, b]) => b - a))),
    deadlocks,
    drainMs,
    closes: timeline.all('close').map(({ ms }) => ms),
  };
}

const together = (many: readonly Figures[], key: keyof Figures) => many.flatMap((one) => one[key]);

/** The figures of all rounds as one object: lists as median, 99th percentile or maximum. */
export function total(many: readonly Figures[]): Record<string, number> {
  const sum = (key: keyof Figures) => together(many, key).reduce((a, b) => a + b, 0);
  const at = (key: keyof Figures, share: number) => percentile(together(many, key), share);
  return {
    rounds: many.length,
    jobs: sum('jobs'),
    runs: sum('runs'),
    kills: sum('kills'),
    poisoned: sum('poisoned'),
    freezes: sum('freezes'),
    deploys: sum('deploys'),
    restarts: sum('restarts'),
    crashes: sum('crashes'),
    partitions: sum('partitions'),
    rescueP50Ms: at('rescues', 0.5),
    rescueP99Ms: at('rescues', 0.99),
    succeeded: sum('succeeded'),
    failed: sum('failed'),
    exhausted: sum('exhausted'),
    expired: sum('expired'),
    interrupted: sum('interrupted'),
    fencedEnds: sum('fencedEnds'),
    enqueueP50Ms: at('enqueues', 0.5),
    enqueueP99Ms: at('enqueues', 0.99),
    unknownEnqueues: sum('unknownEnqueues'),
    guardTerms: sum('guardTerms'),
    guardStuckMaxMs: at('guardStuckMs', 1),
    deadlocks: sum('deadlocks'),
    closeMaxMs: at('closes', 1),
    drainMaxMs: at('drainMs', 1),
  };
}

export function percentile(values: readonly number[], share: number): number {
  if (values.length === 0) return 0;
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)]!;
}
