import { waiting } from '../fill.js';
import { perSecond } from '../statistics.js';
import type { Sample, Scenario } from './scenario.js';

const DEADLINE_MS = 300_000;
const thousands = (jobs: number) => jobs.toLocaleString('en');

export const backlog: Scenario = {
  name: 'backlog',
  title: 'Draining while much waits',
  notes:
    'Jobs per second over the first three quarters of the smallest backlog, between the begin of the first handler and of the last counted one.',
  quickSeconds: 38,
  columns: ({ backlogs }) =>
    backlogs.map((size) => ({
      key: String(size),
      title: `${thousands(size)} wait, jobs/s`,
    })),
  contenders: ({ quick }) => [
    'bildad-100',
    ...(quick ? [] : ['bildad', 'graphile-tuned', 'pg-boss-tuned']),
  ],
  async run(stages, contender, { backlogs }) {
    const counted = (Math.min(...backlogs) * 3) / 4;
    const sample: Sample = {};
    for (const jobs of backlogs) {
      const sql = contender.peer ? undefined : waiting(jobs);
      sample[jobs] = await stages.on(
        contender,
        { jobs, sql, copy: 'in bulk' },
        async (_stage, [worker]) => {
          await Promise.all([worker.begun(counted, DEADLINE_MS), worker.call('work', {})]);
          const { begin, milestones } = await worker.call('worked');
          const last = milestones.find((mark) => mark.jobs === counted)!;
          return perSecond(counted, last.at - begin);
        },
      );
    }
    return sample;
  },
};
