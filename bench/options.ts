/** The command line, and what it means in jobs and seconds. */
import { parseArgs } from 'node:util';

export interface Options {
  quick: boolean;
  rounds: number;
  /** Whether a scenario ends early when its time is up. */
  hurries: boolean;
  only: string[] | undefined;
  /** Undefined: if there is one. */
  redis: boolean | undefined;
  /** Jobs of a drain, by what the contender can do. */
  drain: { fast: number; slow: number; polling: number };
  /** Jobs enqueued one by one: a commit each is slow, a shared one fast. */
  single: { fast: number; slow: number };
  bulk: number;
  idleSamples: number;
  idlePauseMs: [number, number];
  steadyMs: number;
  processes: number;
  backlogs: number[];
  /** Dead rows in front of the queue, growing. */
  deadRows: number[];
}

const ROUNDS = 3;
const FULL = {
  drain: { fast: 100_000, slow: 10_000, polling: 8 },
  single: { fast: 50_000, slow: 5000 },
  bulk: 100_000,
  idleSamples: 300,
  idlePauseMs: [50, 100] as [number, number],
  steadyMs: 20_000,
  processes: 200_000,
  backlogs: [20_000, 200_000, 1_000_000],
  deadRows: [0, 100_000, 1_000_000],
};
const QUICK: typeof FULL = {
  drain: { fast: 30_000, slow: 1500, polling: 2 },
  single: { fast: 10_000, slow: 800 },
  bulk: 30_000,
  idleSamples: 40,
  idlePauseMs: [30, 60],
  steadyMs: 2000,
  processes: 50_000,
  backlogs: [20_000, 1_000_000],
  deadRows: [0, 20_000, 100_000],
};

export function readOptions(args: string[], scenarios: string[]): Options {
  const { values } = parseArgs({
    args,
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      rounds: { type: 'string' },
      jobs: { type: 'string' },
      redis: { type: 'boolean' },
    },
    allowNegative: true,
  });
  const only = values.only?.split(',');
  const unknown = only?.filter((name) => !scenarios.includes(name)) ?? [];
  if (unknown.length > 0)
    throw new Error(`no scenario ${unknown.join(', ')}; there are ${scenarios.join(', ')}`);
  const sizes = values.quick ? QUICK : FULL;
  const jobs = positive(values.jobs, 'jobs') ?? sizes.drain.fast;
  const rounds = positive(values.rounds, 'rounds');
  const scale = jobs / sizes.drain.fast;
  const scaled = (size: number) => Math.max(1, Math.round(size * scale));
  return {
    ...sizes,
    drain: {
      fast: jobs,
      slow: scaled(sizes.drain.slow),
      polling: sizes.drain.polling,
    },
    processes: scaled(sizes.processes),
    bulk: scaled(sizes.bulk),
    single: {
      fast: scaled(sizes.single.fast),
      slow: scaled(sizes.single.slow),
    },
    quick: values.quick,
    only,
    rounds: rounds ?? ROUNDS,
    hurries: values.quick && rounds === undefined,
    redis: values.redis ?? (values.quick ? false : undefined),
  };
}

function positive(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new Error(`--${name}: a whole number from 1, not "${text}"`);
  return value;
}
