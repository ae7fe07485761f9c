import { Random } from './random.js';

/**
 * What the jobs of the lab do: `ok` takes moments, `flaky` fails the first times, `failing` always, `long`
 * takes seconds and heeds its signal, `deaf` does not and is timed out, `blocking` holds the event loop,
 * `poison` ends its process, `hostile` returns what cannot be stored, `fast` does nothing and comes in bursts,
 * `stopped` is stopped in the queue by an operator while it runs.
 */
export const KINDS = [
  'ok',
  'flaky',
  'failing',
  'long',
  'deaf',
  'blocking',
  'poison',
  'hostile',
  'fast',
  'stopped',
] as const;
export type Kind = (typeof KINDS)[number];

export interface LabContext {
  n: number;
  ms?: number;
  /** Runs that fail first, or take their process with them. */
  failures?: number;
}

/** As many as the faults of a minute need: each costs a job on the node a run. */
export const MAX_RETRIES: Readonly<Record<Kind, number>> = {
  ok: 8,
  flaky: 8,
  failing: 2,
  long: 12,
  deaf: 1,
  blocking: 4,
  poison: 3,
  hostile: 8,
  fast: 8,
  stopped: 8,
};

export type Weights = Partial<Record<Kind, number>>;

/** Per thousand. Poison is rare: each takes its neighbours' runs along. */
export const MIX: Weights = {
  ok: 700,
  flaky: 80,
  failing: 40,
  long: 70,
  deaf: 25,
  blocking: 20,
  poison: 4,
  hostile: 40,
  stopped: 21,
};

/** Of a burst. */
export const BURST_MIX: Weights = { fast: 95, stopped: 5 };

export interface PlannedJob {
  n: number;
  id: string;
  kind: Kind;
  context: LabContext;
  priority: number;
  delayMs: number;
  /** Rolled back after the job was enqueued in it. */
  rollsBack: boolean;
}

/** Job number n of a client: a function of the seed, the client and n. */
export function plannedJob(
  seed: number,
  client: number,
  n: number,
  mix: Weights = MIX,
): PlannedJob {
  const random = new Random(seed * 1_000_003 + client * 500_009 + n);
  // Neighbours in the seed are far apart after a few steps.
  for (let step = 0; step < 3; step++) random.next();
  const kind = random.weighted(mix);
  return {
    n,
    id: `${client}-${n}-${kind}`,
    kind,
    context: { n, ...details(kind, random) },
    priority: random.pick([1, 5, 5, 5, 9]),
    delayMs: random.chance(0.1) ? Math.round(random.between(100, 2_000)) : 0,
    rollsBack: random.chance(0.1),
  };
}

function details(kind: Kind, random: Random): Omit<LabContext, 'n'> {
  const ms = (low: number, high: number) => Math.round(random.between(low, high));
  switch (kind) {
    case 'ok':
      return { ms: ms(5, 300) };
    case 'flaky':
      return { ms: ms(5, 100), failures: 1 + random.below(2) };
    case 'long':
      return { ms: ms(1_000, 4_500) };
    case 'deaf':
      return { ms: ms(1_500, 3_000) };
    case 'stopped':
      return { ms: ms(200, 600) };
    case 'blocking':
      // One in eight for longer than the lease of the lab.
      return { ms: random.chance(0.125) ? ms(4_000, 5_000) : ms(200, 1_200) };
    case 'poison':
      // One in four every time.
      return { failures: random.chance(0.25) ? 1_000 : 1 };
    default:
      return {};
  }
}
