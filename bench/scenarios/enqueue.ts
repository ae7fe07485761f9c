import { commitsEach } from '../contenders.js';
import { perSecond } from '../statistics.js';
import type { Scenario } from './scenario.js';

const IN_FLIGHT = 32;

export const enqueue: Scenario = {
  name: 'enqueue',
  title: 'Enqueueing, one by one and in bulk',
  notes: `One by one: ${IN_FLIGHT} callers that each await their job before the next, after 200 jobs to warm up; p50 and p99 are of a call. In bulk: all jobs in one call; tuned peers 5,000 at a time in two calls at once, which is faster. No worker runs.`,
  quickSeconds: 65,
  columns: () => [
    { key: 'rate', title: 'one by one, jobs/s' },
    { key: 'p50', title: 'p50 ms', digits: 2 },
    { key: 'p99', title: 'p99 ms', digits: 2 },
    { key: 'cpu', title: 'producer CPU µs', digits: 1 },
    { key: 'serverCpu', title: 'server CPU µs', digits: 1 },
    { key: 'wal', title: 'WAL bytes' },
    { key: 'bulk', title: 'in bulk, jobs/s' },
  ],
  contenders: ({ quick }) => [
    'bildad',
    'graphile',
    'graphile-tuned',
    'raw',
    'pg-boss',
    'pg-boss-tuned',
    'bullmq-pg-tuned',
    ...(quick ? [] : ['bullmq-pg', 'bullmq-redis', 'bullmq-redis-tuned', 'bullmq-redis-aof']),
  ],
  run(stages, contender, { single, bulk }) {
    const jobs = commitsEach(contender) ? single.slow : single.fast;
    return stages.on(contender, {}, async (stage, [producer]) => {
      await producer.call('produce');
      const before = await stage.meter();
      const { ms, cpuMs, p50, p99 } = await producer.call('enqueueOneByOne', {
        jobs,
        inFlight: IN_FLIGHT,
      });
      const after = await stage.meter();
      const bulkMs = await producer.call('enqueueBulk', { jobs: bulk });
      return {
        rate: perSecond(jobs, ms),
        p50,
        p99,
        cpu: (cpuMs / jobs) * 1000,
        serverCpu: ((after.serverCpuMs - before.serverCpuMs) / jobs) * 1000,
        wal: (after.walBytes - before.walBytes) / jobs,
        bulk: perSecond(bulk, bulkMs),
      };
    });
  },
};
