import type { Milestone } from '../tally.js';
import { perSecond } from '../statistics.js';
import type { Contender } from '../contenders.js';
import type { Stages } from '../stage.js';
import type { Scenario } from './scenario.js';

const DEADLINE_MS = 600_000;

export const processes: Scenario = {
  name: 'processes',
  title: 'One process and two on one queue',
  notes:
    'Two: jobs per second of both together from the moment when the later one has begun its first job, until the ends of all are recorded. The share is that of the slower one in this time, of 50 % when it is fair.',
  quickSeconds: 25,
  columns: () => [
    { key: 'one', title: 'one, jobs/s' },
    { key: 'two', title: 'two, jobs/s' },
    { key: 'share', title: 'smaller share %', digits: 1 },
  ],
  contenders: ({ quick }) =>
    quick ? ['bildad-100'] : ['bildad', 'bildad-100', 'graphile-tuned', 'pg-boss-tuned'],
  async run(stages, contender, options) {
    const jobs = options.processes;
    const one = await play(stages, contender, jobs, 1);
    const two = await play(stages, contender, jobs, 2);
    return { one: one.rate, two: two.rate, share: two.share };
  },
};

function play(
  stages: Stages,
  contender: Contender,
  jobs: number,
  count: 1 | 2,
): Promise<{ rate: number; share: number }> {
  const setting = { jobs, agents: count };
  return stages.on(contender, setting, async (_stage, workers) => {
    const [first, ...others] = workers;
    const drained = async () => {
      await first.begun(jobs, DEADLINE_MS, others);
      return first.call('settle');
    };
    const [end] = await Promise.all([
      drained(),
      ...workers.map((worker) => worker.call('work', {})),
    ]);
    const worked = [];
    for (const worker of workers) worked.push(await worker.call('worked'));
    const begin = Math.max(...worked.map((each) => each.begin));
    const counted = worked.map((each) => each.jobs - jobsAt(begin, each));
    const total = counted.reduce((sum, each) => sum + each, 0);
    return {
      rate: perSecond(total, end - begin),
      share: (Math.min(...counted) / total) * 100,
    };
  });
}

/** How many jobs a worker had begun at a moment, on a line between its milestones. */
function jobsAt(
  moment: number,
  { begin, milestones }: { begin: number; milestones: Milestone[] },
): number {
  let before = { jobs: 0, at: begin };
  for (const after of milestones) {
    if (after.at > moment)
      return (
        before.jobs + ((after.jobs - before.jobs) * (moment - before.at)) / (after.at - before.at)
      );
    before = after;
  }
  return before.jobs;
}
