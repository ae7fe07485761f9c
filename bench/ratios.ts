/** Made within a round, whose runs lie next to one another, then compared between rounds. */
import { CONTENDERS, type Store } from './contenders.js';
import type { Results } from './results.js';
import { spread, type Spread } from './statistics.js';

export interface Ratio {
  key: string;
  meaning: string;
  spread: Spread | undefined;
}

type Value = number | undefined;
type Look = (scenario: string, contender: string, metric: string) => Value;

const PEERS = CONTENDERS.filter(({ peer }) => peer);

const divided = (ours: Value, theirs: Value): Value =>
  ours === undefined || theirs === undefined ? undefined : ours / theirs;

const ofPeers = (look: Look, scenario: string, metric: string, on?: Store) =>
  PEERS.filter(({ store }) => !on || store === on)
    .map(({ id }) => look(scenario, id, metric))
    .filter((value) => value !== undefined);

/** Of those on PostgreSQL. */
const fastest = (look: Look, scenario: string, metric: string): Value =>
  spread(ofPeers(look, scenario, metric, 'postgres'))?.max;

/** Of all, those on Redis too if they take part. */
const soonest = (look: Look, scenario: string, metric: string): Value =>
  spread(ofPeers(look, scenario, metric))?.min;

const drain = (look: Look, ours: string, theirs: string) =>
  divided(look('drain', ours, 'rate'), look('drain', theirs, 'rate'));

type Ratios = Record<string, { meaning: string; of: (look: Look) => Value }>;

/** Of the last line. */
const RATIOS: Ratios = {
  drainDefaultVsGraphileDefault: {
    meaning: "drain, our defaults / graphile-worker's quickstart",
    of: (look) => drain(look, 'bildad', 'graphile'),
  },
  drainDefaultVsGraphileTuned: {
    meaning: 'drain, our defaults / graphile-worker tuned',
    of: (look) => drain(look, 'bildad', 'graphile-tuned'),
  },
  drainVsGraphileTuned: {
    meaning: 'drain, our concurrency 100 / graphile-worker tuned',
    of: (look) => drain(look, 'bildad-100', 'graphile-tuned'),
  },
  drainVsPgBossTuned: {
    meaning: 'drain, our concurrency 100 / pg-boss tuned',
    of: (look) => drain(look, 'bildad-100', 'pg-boss-tuned'),
  },
  drainVsRawHistory: {
    meaning: 'drain, our concurrency 100 / raw SQL that keeps every run',
    of: (look) => drain(look, 'bildad-100', 'raw'),
  },
  enqueueSingleVsBestPostgresPeer: {
    meaning: 'enqueueing one by one, ours / the best peer on PostgreSQL',
    of: (look) => divided(look('enqueue', 'bildad', 'rate'), fastest(look, 'enqueue', 'rate')),
  },
  enqueueBulkVsBestPostgresPeer: {
    meaning: 'enqueueing in bulk, ours / the best peer on PostgreSQL',
    of: (look) => divided(look('enqueue', 'bildad', 'bulk'), fastest(look, 'enqueue', 'bulk')),
  },
  pickupP50VsBestPeer: {
    meaning: "idle pick-up p50, ours / the best's of all peers that took part: LOWER is better",
    of: (look) => divided(look('latency', 'bildad', 'p50'), soonest(look, 'latency', 'p50')),
  },
  backlog1MVs20k: {
    meaning: 'drain of ours while 1,000,000 wait / while 20,000 wait',
    of: (look) =>
      divided(look('backlog', 'bildad-100', '1000000'), look('backlog', 'bildad-100', '20000')),
  },
  twoProcessesVsOne: {
    meaning: 'drain of ours by two processes together / by one',
    of: (look) =>
      divided(look('processes', 'bildad-100', 'two'), look('processes', 'bildad-100', 'one')),
  },
};

const steady = (look: Look, metric: string) =>
  divided(look('latency', 'bildad', metric), look('latency', 'graphile-tuned', metric));

/** For the table only. */
const FURTHER: Ratios = {
  enqueueSingleVsBullMQOnRedis: {
    meaning: 'enqueueing one by one, ours / BullMQ on Redis without AOF',
    of: (look) =>
      divided(look('enqueue', 'bildad', 'rate'), look('enqueue', 'bullmq-redis-tuned', 'rate')),
  },
  pickupP99VsBestPeer: {
    meaning: "idle pick-up p99, ours / the best's of all peers that took part: LOWER is better",
    of: (look) => divided(look('latency', 'bildad', 'p99'), soonest(look, 'latency', 'p99')),
  },
  steadyP50VsGraphileTuned: {
    meaning: 'p50 at a steady rate, ours / its: LOWER is better',
    of: (look) => steady(look, 'steadyP50'),
  },
  steadyP99VsGraphileTuned: {
    meaning: 'p99 at a steady rate, ours / its: LOWER is better',
    of: (look) => steady(look, 'steadyP99'),
  },
  steadyCpuVsGraphileTuned: {
    meaning: "worker's CPU at a steady rate, ours / its: LOWER is better",
    of: (look) => steady(look, 'steadyCpu'),
  },
};

export const ratiosOf = (results: Results) => made(RATIOS, results);

/** The measured ratios. */
export const furtherRatiosOf = (results: Results) =>
  made(FURTHER, results).filter(({ spread }) => spread !== undefined);

function made(ratios: Ratios, results: Results): Ratio[] {
  return Object.entries(ratios).map(([key, { meaning, of }]) => {
    const values = Array.from({ length: results.rounds }, (_none, round) =>
      of((scenario, contender, metric) => results.value(scenario, contender, round, metric)),
    ).filter((value) => value !== undefined);
    return { key, meaning, spread: spread(values) };
  });
}

/** The medians; null for what was not measured. */
export const lastLine = (ratios: Ratio[]) =>
  JSON.stringify(
    Object.fromEntries(
      ratios.map(({ key, spread }) => [key, spread ? Number(spread.median.toFixed(3)) : null]),
    ),
  );
