import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { startNode, type TestNode } from '../support/node.js';

// Node processes whose clocks are wrong or jump, compared with each other and with the database.

const LEASE_MS = 1_500;
const MINUTES_10 = 600_000;
const WRONG_CLOCK = new URL('../../dist/test/fixtures/wrong-clock.js', import.meta.url).href;

let bildad: TestApp;
const nodes: TestNode[] = [];

beforeAll(async () => {
  bildad = await bootApp({ options: { role: 'producer' } });
  await bildad.sql('CREATE TABLE ledger (id bigserial, identifier text, run_id bigint, pid int)');
  await bildad.jobs.updateJobConfig({ leaseMs: LEASE_MS });
});
afterEach(() => Promise.all(nodes.splice(0).map((node) => node.kill())));
afterAll(() => bildad.close());

it(
  'wrong clocks make no job early, no run expired and no node fenced',
  { timeout: 60_000 },
  async () => {
    // The clock of the third node jumps forth and back by an hour.
    for (const CLOCK_OFF_MS of [MINUTES_10, -MINUTES_10, 'jumps'])
      nodes.push(
        await startNode(bildad.database.url, {
          CLOCK_OFF_MS: String(CLOCK_OFF_MS),
          NODE_OPTIONS: `--import=${WRONG_CLOCK}`,
          CONCURRENCY: '2',
        }),
      );
    const later = await bildad.engine.enqueueJobs(
      'HEALTHY',
      Array.from({ length: 30 }, () => ({})),
      { delay: '1s' },
    );
    // One job per slot, for more than two leases. A node that used its own clock would expire one.
    const long = await bildad.engine.enqueueJobs(
      'BUSY',
      Array.from({ length: 6 }, () => ({ ms: 2.5 * LEASE_MS })),
    );
    for (const { jobRunIdentifier } of [...long, ...later])
      expect(await bildad.engine.waitForJob(jobRunIdentifier, { timeout: '20s' })).toMatchObject({
        retry: 0,
        result: 'SUCCEEDED',
      });
    const [early] = await bildad.sql<{ jobs: number }>(
      `SELECT count(*)::int AS jobs FROM bildad.job_runs WHERE started_at < available_at`,
    );
    expect(early).toEqual({ jobs: 0 });
    const ran = await bildad.sql('SELECT DISTINCT pid FROM ledger');
    expect(ran).toHaveLength(3);
    expect(await bildad.jobs.listNodes()).toSatisfy((listed: { endedAt: unknown }[]) =>
      listed.every(({ endedAt }) => endedAt === null),
    );
    expect(nodes.flatMap(({ messages }) => messages.map(({ event }) => event))).not.toContain(
      'node.fenced',
    );
  },
);
