/** Who takes part, and in which configurations. */

export type Store = 'postgres' | 'redis' | 'redis with AOF';

export interface Contender {
  id: string;
  label: string;
  adapterUrl: string;
  config: string;
  /** Contenders of one schema start from copies of one prepared database. */
  schema: string;
  store: Store;
  /** How many jobs are enough to measure it: all, a few thousand, or a handful. */
  speed: 'fast' | 'slow' | 'polling';
  /** Another engine: not Bildad and not the raw limit. */
  peer: boolean;
}

/** Waits for a commit of its own at each call that enqueues one job. */
export const commitsEach = ({ peer, store }: Contender) => peer && store === 'postgres';

const own = (file: string) => ({
  adapterUrl: new URL(`./${file}.js`, import.meta.url).href,
  // The raw adapter works on Bildad's tables.
  schema: 'bildad',
  store: 'postgres' as const,
  speed: 'fast' as const,
  peer: false,
});

const peer = (file: string) => ({
  adapterUrl: new URL(`../../bench/peers/dist/peers/${file}.js`, import.meta.url).href,
  schema: file,
  store: 'postgres' as const,
  peer: true,
});

export const CONTENDERS: readonly Contender[] = [
  {
    id: 'bildad',
    label: 'Bildad, defaults',
    config: 'default',
    ...own('bildad'),
  },
  {
    id: 'bildad-100',
    label: 'Bildad, concurrency 100',
    config: 'concurrency-100',
    ...own('bildad'),
  },
  {
    id: 'raw',
    label: 'raw SQL, run row at claim',
    config: 'default',
    ...own('raw'),
  },
  {
    id: 'graphile',
    label: 'graphile-worker, quickstart',
    config: 'default',
    speed: 'slow',
    ...peer('graphile-worker'),
  },
  {
    id: 'graphile-tuned',
    label: 'graphile-worker, tuned',
    config: 'tuned',
    speed: 'fast',
    ...peer('graphile-worker'),
  },
  {
    id: 'pg-boss',
    label: 'pg-boss, README',
    config: 'default',
    speed: 'polling',
    ...peer('pg-boss'),
  },
  {
    id: 'pg-boss-tuned',
    label: 'pg-boss, tuned',
    config: 'tuned',
    speed: 'fast',
    ...peer('pg-boss'),
    schema: 'pg-boss with notify',
  },
  {
    id: 'bullmq-pg',
    label: 'BullMQ on PostgreSQL, guide',
    config: 'postgres',
    speed: 'slow',
    ...peer('bullmq'),
  },
  {
    id: 'bullmq-pg-tuned',
    label: 'BullMQ on PostgreSQL, tuned',
    config: 'postgres-tuned',
    speed: 'slow',
    ...peer('bullmq'),
  },
  {
    id: 'bullmq-redis',
    label: 'BullMQ on Redis, README',
    config: 'redis',
    speed: 'slow',
    ...peer('bullmq'),
    store: 'redis',
  },
  {
    id: 'bullmq-redis-tuned',
    label: 'BullMQ on Redis, tuned',
    config: 'redis-tuned',
    speed: 'fast',
    ...peer('bullmq'),
    store: 'redis',
  },
  {
    id: 'bullmq-redis-aof',
    label: 'BullMQ on Redis with AOF, tuned',
    config: 'redis-tuned',
    speed: 'fast',
    ...peer('bullmq'),
    store: 'redis with AOF',
  },
];

export function contender(id: string): Contender {
  const found = CONTENDERS.find((one) => one.id === id);
  if (!found) throw new Error(`no contender "${id}"`);
  return found;
}
