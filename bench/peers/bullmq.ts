/**
 * On PostgreSQL and on Redis. The defaults are its guide's and README's: one job at a time. `tuned` runs more of them
 * at once; on Redis it also keeps nothing of what is done, as its guide to production recommends, which on PostgreSQL
 * makes it slower.
 */
import { createPostgresBackend, Queue, Worker, type DefaultJobOptions, type Job } from 'bullmq';
import { inParts } from './parts.js';
import type { Adapter, Payload, Target } from '../adapter.js';

const QUEUE = 'noop';
/** More is no faster: 10 to 100 are alike on PostgreSQL, 50 to 500 on Redis. */
const CONCURRENCY = 50;

const onPostgres = ({ config }: Target) => config.startsWith('postgres');
const isTuned = ({ config }: Target) => config.endsWith('tuned');

function queue(target: Target, migrate = false) {
  const defaultJobOptions: DefaultJobOptions =
    isTuned(target) && !onPostgres(target) ? { removeOnComplete: true, removeOnFail: 1000 } : {};
  return onPostgres(target)
    ? new Queue(QUEUE, { connection: postgres(target, migrate) }, createPostgresBackend)
    : new Queue(QUEUE, { connection: redis(target), defaultJobOptions });
}

const postgres = (target: Target, migrate = false) => ({
  connectionString: target.url,
  migrate,
});

const redis = ({ url }: Target) => ({ url, maxRetriesPerRequest: null });

export const adapter: Adapter = {
  async prepare(target) {
    const made = queue(target, true);
    await made.waitUntilReady();
    await made.close();
  },

  async produce(target) {
    const made = queue(target);
    await made.waitUntilReady();
    return {
      enqueueOne: (payload) => made.add('noop', payload),
      enqueueBulk: (payloads) =>
        inParts(payloads, isTuned(target), (part) =>
          made.addBulk(part.map((data) => ({ name: 'noop', data }))),
        ),
    };
  },

  async work(target, onJob) {
    const options = isTuned(target) ? { concurrency: CONCURRENCY } : {};
    const handler = async ({ data }: Job<Payload>) => onJob(data);
    const worker = onPostgres(target)
      ? new Worker(
          QUEUE,
          handler,
          { connection: postgres(target), ...options },
          createPostgresBackend,
        )
      : new Worker(QUEUE, handler, {
          connection: redis(target),
          ...options,
        });
    worker.on('error', console.error);
    await worker.waitUntilReady();
  },

  async unfinished(target) {
    watched ??= queue(target);
    const counts = await watched.getJobCounts('wait', 'active', 'delayed');
    return Object.values(counts).some((count) => count > 0);
  },
};

/** Of the process that is asked whether all is done. */
let watched: ReturnType<typeof queue> | undefined;
