import { Random } from './random.js';
import type { NetFault } from './proxy.js';

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
  | 'xmin';

/** A fault with its end. Times in milliseconds from the start of the round. */
export interface PlannedFault {
  n: number;
  at: number;
  /** Until the heal. */
  lasts: number;
  kind: FaultKind;
  /** A worker, the clients, or the database. */
  target: string;
  /** `delay`: of each chunk. */
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
};

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
};

const OF_DATABASE: readonly FaultKind[] = ['backends', 'restart', 'crash', 'lock', 'xmin'];
const OF_WORKERS: readonly FaultKind[] = ['kill', 'freeze', 'deploy'];
/** One in so many faults of the network hits the clients. */
const CLIENTS_SHARE = 0.2;

export interface ScheduleOptions {
  seed: number;
  ms: number;
  workers: readonly string[];
  faults?: FaultWeights;
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
  pause = [200, 1_000],
  lasts = {},
}: ScheduleOptions): PlannedFault[] {
  const random = new Random(seed);
  const free = new Map<string, number>();
  const planned: PlannedFault[] = [];
  for (let at = 500; at < ms; at += random.between(...pause)) {
    const kind = random.weighted(faults);
    const target = OF_DATABASE.includes(kind)
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
    const place = placeOf(fault);
    // Drawn all the same: what comes after does not depend on it.
    if ((free.get(place) ?? 0) > fault.at) continue;
    free.set(place, fault.at + fault.lasts + 500);
    planned.push(fault);
  }
  return planned;
}

/** Where there is one fault at a time. An old snapshot is in nobody's way. */
export const placeOf = ({ kind, target }: PlannedFault) => (kind === 'xmin' ? kind : target);

function details(kind: FaultKind, random: Random): Partial<PlannedFault> {
  if (kind === 'delay') return { delayMs: Math.round(random.between(50, 700)) };
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
