import { Random } from './random.js';
import type { NetFault } from './proxy.js';

/** Row locks of other transactions, an old snapshot, and a long way to the database: work goes on beside these. */
export type ContentionFault = RowLock | 'xmin' | 'distance';

export type RowLock = 'lockRuns' | 'lockEntries' | 'lockTemplates' | 'lockKeys' | 'lockNodes';

export type FaultKind =
  | 'kill'
  | 'freeze'
  | 'deploy'
  | NetFault
  | 'cut'
  | 'backends'
  | 'restart'
  | 'crash'
  | 'lock'
  | ContentionFault;

/** A fault with its end. Times in milliseconds from the start of the round. */
export interface PlannedFault {
  n: number;
  at: number;
  /** Until the heal. */
  lasts: number;
  kind: FaultKind;
  /** A worker, the clients, the database, or the kind itself where only rows or snapshots are concerned. */
  target: string;
  /** `delay` and `distance`: of each chunk, one way. */
  delayMs?: number;
  /** `cut`: the statement after which the connection is gone. */
  statement?: string;
  /** `deploy`: the new version has no handler for this. */
  missing?: string;
  /** `deploy`: what the network does while the old one shuts down. */
  dark?: 'blackhole' | 'blackholeEstablished';
}

export type FaultWeights = Partial<Record<FaultKind, number>>;

export const FAULTS: FaultWeights = {
  kill: 22,
  freeze: 14,
  deploy: 8,
  blackhole: 9,
  blackholeEstablished: 8,
  dropAnswers: 5,
  refuse: 5,
  delay: 6,
  reset: 5,
  halfClose: 4,
  cut: 10,
  backends: 6,
  restart: 5,
  crash: 6,
  lock: 3,
  xmin: 2,
  lockRuns: 6,
  lockEntries: 5,
  lockTemplates: 3,
  lockKeys: 4,
  lockNodes: 2,
  distance: 4,
};

/** Of the first part of a round, in which nothing else is wrong: only there can slow work be blamed on them. */
export const CONTENTION: Readonly<Record<ContentionFault, number>> = {
  lockRuns: 6,
  lockEntries: 5,
  lockTemplates: 4,
  lockKeys: 4,
  lockNodes: 2,
  xmin: 3,
  distance: 4,
};

export const isContention = (kind: string): kind is ContentionFault => kind in CONTENTION;

/** Names in the statements of the engine; TypeORM says COMMIT in capitals. */
const STATEMENTS = [
  'COMMIT',
  'claim_jobs',
  'finish_job_runs',
  'WITH renewed AS',
  'enqueue_jobs',
] as const;

/** How long each lasts, in milliseconds. What ends a node for a moment lasts as long as it is away. */
const LASTS: Readonly<Record<FaultKind, readonly [number, number]>> = {
  kill: [200, 1_500],
  freeze: [500, 7_000],
  deploy: [0, 500],
  blackhole: [500, 7_000],
  blackholeEstablished: [2_000, 10_000],
  dropAnswers: [500, 4_000],
  refuse: [500, 4_000],
  delay: [1_000, 5_000],
  reset: [0, 0],
  halfClose: [0, 0],
  cut: [1_000, 3_000],
  backends: [0, 0],
  restart: [0, 1_000],
  crash: [0, 2_500],
  lock: [1_000, 4_000],
  xmin: [3_000, 9_000],
  lockRuns: [2_000, 6_000],
  lockEntries: [2_000, 6_000],
  lockTemplates: [2_000, 6_000],
  lockKeys: [2_000, 6_000],
  // Less than a lease: a node that cannot renew its lease loses it, and that is right.
  lockNodes: [1_000, 2_000],
  distance: [3_000, 8_000],
};

const OF_DATABASE: readonly FaultKind[] = ['backends', 'restart', 'crash', 'lock'];
const OF_WORKERS: readonly FaultKind[] = ['kill', 'freeze', 'deploy', 'lockNodes'];
/** One of each at a time, whatever else happens. */
const OF_NO_TARGET: readonly FaultKind[] = [
  'xmin',
  'lockRuns',
  'lockEntries',
  'lockTemplates',
  'lockKeys',
];
/** Each way: a link of 50 to 200 ms there and back. */
const DISTANCE_MS = [25, 100] as const;
/** One in so many faults of the network hits the clients. */
const CLIENTS_SHARE = 0.2;

export interface ScheduleOptions {
  seed: number;
  ms: number;
  workers: readonly string[];
  faults?: FaultWeights;
  /** For so long from the start there is contention and nothing else. Default 0. */
  contentionMs?: number;
  /** Shortest and longest pause between two faults. */
  pause?: readonly [number, number];
  lasts?: Partial<Record<FaultKind, readonly [number, number]>>;
}

/** A function of its options. Each target has one fault at a time, and is left alone for a moment after it. */
export function schedule({
  seed,
  ms,
  workers,
  faults = FAULTS,
  contentionMs = 0,
  pause = [200, 1_000],
  lasts = {},
}: ScheduleOptions): PlannedFault[] {
  const random = new Random(seed);
  const free = new Map<string, number>();
  const planned: PlannedFault[] = [];
  for (let at = 500; at < ms; at += random.between(...pause)) {
    const kind = random.weighted(at < contentionMs ? CONTENTION : faults);
    const target = OF_NO_TARGET.includes(kind)
      ? kind
      : OF_DATABASE.includes(kind)
        ? 'database'
        : !OF_WORKERS.includes(kind) && random.chance(CLIENTS_SHARE)
          ? 'client'
          : random.pick(workers);
    const fault: PlannedFault = {
      n: planned.length,
      at: Math.round(at),
      lasts: Math.round(random.between(...(lasts[kind] ?? LASTS[kind]))),
      kind,
      target,
      ...details(kind, random),
    };
    // Drawn all the same: what comes after does not depend on it.
    if ((free.get(target) ?? 0) > fault.at) continue;
    free.set(target, fault.at + fault.lasts + 500);
    planned.push(fault);
  }
  return planned;
}

function details(kind: FaultKind, random: Random): Partial<PlannedFault> {
  if (kind === 'delay') return { delayMs: Math.round(random.between(50, 700)) };
  if (kind === 'distance') return { delayMs: Math.round(random.between(...DISTANCE_MS)) };
  if (kind === 'cut') return { statement: random.pick(STATEMENTS) };
  if (kind !== 'deploy') return {};
  return {
    ...(random.chance(0.5) && {
      missing: random.pick(['flaky', 'long', 'ok']),
    }),
    ...(random.chance(0.3) && {
      dark: random.pick(['blackhole', 'blackholeEstablished'] as const),
    }),
  };
}
