import type { Agent } from '../agents.js';
import { commitsEach, type Contender } from '../contenders.js';
import type { Options } from '../options.js';
import { percentile } from '../statistics.js';
import type { Sent } from '../sending.js';
import type { Sample, Scenario } from './scenario.js';

const WARM_UP = 10;
const STEADY_PER_SECOND = 2000;
/** Seconds that a worker may be behind when the last job is sent. */
const MOST_BEHIND_S = 2;
const DEADLINE_MS = 60_000;

export const latency: Scenario = {
  name: 'latency',
  title: `From the call in one process to the handler in another, idle and at ${STEADY_PER_SECOND.toLocaleString('en')} jobs/s`,
  notes: `Milliseconds from before the call that enqueues until the handler begins. Idle: one job after another with a pause of random length. Steady: ${STEADY_PER_SECOND.toLocaleString('en')} jobs per second whether or not the earlier ones are enqueued, a call for each, but of the peers on PostgreSQL, which cannot commit so often, bulk calls with what is due every 3 ms; – means that it cannot keep up, or in a quick run that it is known not to. CPU is the worker's per job.`,
  quickSeconds: 42,
  columns: () => [
    { key: 'p50', title: 'idle p50', digits: 2 },
    { key: 'p99', title: 'idle p99', digits: 2 },
    { key: 'steadyP50', title: 'steady p50', digits: 2 },
    { key: 'steadyP99', title: 'steady p99', digits: 2 },
    { key: 'steadyCpu', title: 'steady CPU µs', digits: 1 },
  ],
  contenders: ({ quick }) => [
    'bildad',
    'graphile-tuned',
    'graphile',
    'pg-boss-tuned',
    'bullmq-pg-tuned',
    ...(quick ? [] : ['bullmq-redis', 'bullmq-redis-tuned', 'bullmq-redis-aof']),
  ],
  run(stages, contender, options) {
    return stages.on(contender, { agents: 2 }, async (_stage, agents) => {
      const [worker, producer] = agents as [Agent, Agent];
      await Promise.all([worker.call('work', { keepsArrivals: true }), producer.call('produce')]);
      return {
        ...(await idle(worker, producer, options)),
        ...(await steady(worker, producer, contender, options)),
      };
    });
  },
};

async function idle(
  worker: Agent,
  producer: Agent,
  { idleSamples, idlePauseMs }: Options,
): Promise<Sample> {
  const jobs = WARM_UP + idleSamples;
  const sent = await producer.call('singly', { jobs, pauseMs: idlePauseMs });
  await worker.begun(jobs, DEADLINE_MS);
  const delays = await delaysOf(worker, sent.slice(WARM_UP));
  return { p50: percentile(delays, 0.5), p99: percentile(delays, 0.99) };
}

async function steady(
  worker: Agent,
  producer: Agent,
  contender: Contender,
  { steadyMs, quick }: Options,
): Promise<Sample> {
  const nothing = {
    steadyP50: Number.NaN,
    steadyP99: Number.NaN,
    steadyCpu: Number.NaN,
  };
  if (quick && contender.speed !== 'fast') return nothing;
  const before = worker.jobs;
  const cpuBefore = await worker.call('cpu');
  const { sent, keptUp } = await producer.call('paced', {
    perSecond: STEADY_PER_SECOND,
    forMs: steadyMs,
    inBulk: commitsEach(contender),
  });
  const behind = before + sent.length - worker.jobs;
  if (!keptUp || behind > MOST_BEHIND_S * STEADY_PER_SECOND) return nothing;
  await worker.begun(before + sent.length, DEADLINE_MS);
  const cpu = (await worker.call('cpu')) - cpuBefore;
  // The first tenth warms up.
  const delays = await delaysOf(worker, sent.slice(sent.length / 10));
  return {
    steadyP50: percentile(delays, 0.5),
    steadyP99: percentile(delays, 0.99),
    steadyCpu: (cpu / sent.length) * 1000,
  };
}

async function delaysOf(worker: Agent, sent: Sent): Promise<number[]> {
  const { arrivals } = await worker.call('worked');
  const arrived = new Map(arrivals);
  return sent.map(([n, at]) => (arrived.get(n) ?? Number.NaN) - at);
}
