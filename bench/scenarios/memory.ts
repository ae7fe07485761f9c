import { setTimeout as wait } from 'node:timers/promises';
import type { Contender } from '../contenders.js';
import { waiting } from '../fill.js';
import type { Setting, Stages } from '../stage.js';
import type { Scenario } from './scenario.js';

const JOBS = 1_000_000;
const STEP = 100_000;
const IDLE_MS = 10_000;
const DEADLINE_MS = 900_000;
const MB = 1_048_576;

const steps = Array.from({ length: JOBS / STEP }, (_none, n) => (n + 1) * STEP);

export const memory: Scenario = {
  name: 'memory',
  title: 'Memory of a node, MB resident',
  notes: `Idle: after ${IDLE_MS / 1000} s, with an empty queue and with ${JOBS.toLocaleString('en')} jobs that wait for a template which is not active. Then while draining as many.`,
  quickSeconds: 0,
  mostRounds: 1,
  columns: () => [
    { key: 'empty', title: 'idle, none wait' },
    { key: 'waiting', title: 'idle, 1M wait' },
    ...steps.map((step) => ({
      key: String(step),
      title: `${step / 1000}k done`,
    })),
  ],
  contenders: () => ['bildad'],
  async run(stages, contender) {
    const filling = {
      jobs: JOBS,
      sql: waiting(JOBS),
      copy: 'in bulk' as const,
    };
    const drained = await stages.on(contender, filling, async (_stage, [worker]) => {
      await Promise.all([worker.begun(JOBS, DEADLINE_MS), worker.call('work', {})]);
      return (await worker.call('worked')).milestones;
    });
    return {
      empty: await idle(stages, contender, {}),
      waiting: await idle(stages, contender, filling),
      ...Object.fromEntries(
        drained.filter(({ jobs }) => steps.includes(jobs)).map(({ jobs, rss }) => [jobs, rss / MB]),
      ),
    };
  },
};

function idle(stages: Stages, contender: Contender, filling: Setting): Promise<number> {
  return stages.on(contender, filling, async (stage, [worker]) => {
    await stage.sql('UPDATE bildad.job_templates SET active = false');
    await worker.call('work', {});
    await wait(IDLE_MS);
    if (worker.jobs > 0) throw new Error('the template was activated again');
    return (await worker.call('memory')) / MB;
  });
}
