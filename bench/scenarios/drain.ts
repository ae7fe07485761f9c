import type { Agent } from '../agents.js';
import { perSecond } from '../statistics.js';
import type { Stage } from '../stage.js';
import type { Sample, Scenario } from './scenario.js';

const DEADLINE_MS = 600_000;

export const drain: Scenario = {
  name: 'drain',
  title: 'Draining a queue with one process',
  notes:
    'From the begin of the first handler until the ends of all jobs are recorded in the database. µs of CPU and bytes of WAL are per job; the server is all processes of it.',
  quickSeconds: 85,
  columns: () => [
    { key: 'rate', title: 'jobs/s' },
    { key: 'workerCpu', title: 'worker CPU µs', digits: 1 },
    { key: 'serverCpu', title: 'server CPU µs', digits: 1 },
    { key: 'wal', title: 'WAL bytes' },
  ],
  contenders: ({ quick }) => [
    'bildad',
    'graphile',
    'bildad-100',
    'graphile-tuned',
    'raw',
    'pg-boss-tuned',
    'bullmq-pg-tuned',
    ...(quick
      ? []
      : ['bullmq-pg', 'pg-boss', 'bullmq-redis', 'bullmq-redis-tuned', 'bullmq-redis-aof']),
  ],
  run(stages, contender, { drain }) {
    const jobs = drain[contender.speed];
    return stages.on(contender, { jobs }, async (stage, [worker]) => {
      const [sample] = await Promise.all([measure(stage, worker, jobs), worker.call('work', {})]);
      return sample;
    });
  },
};

async function measure(stage: Stage, worker: Agent, jobs: number): Promise<Sample> {
  await worker.begun(1, DEADLINE_MS);
  const before = await stage.meter();
  await worker.begun(jobs, DEADLINE_MS);
  const end = await worker.call('settle');
  const { begin, cpuMs } = await worker.call('worked');
  const after = await stage.meter();
  return {
    rate: perSecond(jobs, end - begin),
    workerCpu: (cpuMs / jobs) * 1000,
    serverCpu: ((after.serverCpuMs - before.serverCpuMs) / jobs) * 1000,
    wal: (after.walBytes - before.walBytes) / jobs,
  };
}
