import { percentile, perSecond } from '../statistics.js';
import type { Agent } from '../agents.js';
import type { Scenario } from './scenario.js';

const IN_FLIGHT = 32;
const WARM_UP = 10;

export const transactions: Scenario = {
  name: 'transactions',
  title: 'Enqueueing in a transaction of the caller, and waiting for a job',
  notes: `In a transaction: ${IN_FLIGHT} callers, each inserts a row of its own and a job and commits, over ten connections; p50 and p99 are of the whole transaction. Bildad by \`engine.transaction\`, graphile-worker by its SQL function, pg-boss by its option \`db\`. Waiting: milliseconds from before the call that enqueues until the caller knows that the job is over, one after another in an idle system, worker and caller in two processes. Bildad by \`waitForJob\`; the peers tell nobody of an end, so they are asked every 20 ms.`,
  // Of its own: a quick run is full.
  quickSeconds: 0,
  columns: () => [
    { key: 'rate', title: 'in a transaction, jobs/s' },
    { key: 'p50', title: 'p50 ms', digits: 2 },
    { key: 'p99', title: 'p99 ms', digits: 2 },
    { key: 'waitP50', title: 'until over, p50 ms', digits: 2 },
    { key: 'waitP99', title: 'p99 ms', digits: 2 },
  ],
  contenders: () => ['bildad', 'graphile', 'graphile-tuned', 'pg-boss', 'pg-boss-tuned'],
  async run(stages, contender, { single, idleSamples, idlePauseMs }) {
    const jobs = single.slow;
    const within = await stages.on(contender, {}, async (stage, [producer]) => {
      await stage.sql('CREATE TABLE bench_rows (n integer, text text)');
      await producer.call('produce');
      const { ms, p50, p99 } = await producer.call('enqueueWithin', {
        jobs,
        inFlight: IN_FLIGHT,
      });
      return { rate: perSecond(jobs, ms), p50, p99 };
    });
    const samples = contender.speed === 'polling' ? 5 : idleSamples;
    const took = await stages.on(contender, { agents: 2 }, async (stage, agents) => {
      const [worker, producer] = agents as [Agent, Agent];
      await stage.sql('CREATE TABLE bench_rows (n integer, text text)');
      await Promise.all([worker.call('work'), producer.call('produce')]);
      return producer.call('untilDone', {
        jobs: WARM_UP + samples,
        pauseMs: idlePauseMs,
      });
    });
    const waits = took.slice(WARM_UP);
    return {
      ...within,
      waitP50: percentile(waits, 0.5),
      waitP99: percentile(waits, 0.99),
    };
  },
};
