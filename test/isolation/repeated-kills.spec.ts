import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootIsolated, type IsolatedApp } from '../support/isolation-app.js';

// `npm run bench:isolation` kills a hundred hosts and also measures memory.

const KILLS = 16;

let bildad: IsolatedApp;

beforeAll(async () => {
  bildad = await bootIsolated({ threads: 2, processes: 2 });
});
afterAll(() => bildad.close());

const resources = async () => {
  const active = process.getActiveResourcesInfo();
  const count = (kind: string) => active.filter((one) => one === kind).length;
  const [{ sessions }] = (await bildad.database.sql<{ sessions: number }>(
    `SELECT count(*)::int AS sessions FROM pg_stat_activity
     WHERE datname = current_database() AND application_name LIKE 'bildad#%'`,
  )) as [{ sessions: number }];
  return {
    threads: count('MessagePort'),
    processes: count('ProcessWrap'),
    sessions,
  };
};

const warm = async () => {
  for (const code of ['THREAD', 'PROCESS'])
    expect((await bildad.act(code, 'session')).result).toBe('SUCCEEDED');
};

it('repeated kills leak no threads, processes or sessions', { timeout: 120_000 }, async () => {
  await warm();
  const before = await resources();
  for (let n = 0; n < KILLS; n++) {
    const code = n % 2 ? 'THREAD' : 'PROCESS';
    const { jobRunId } = await bildad.begin(code, n % 4 ? 'spin' : 'query');
    expect(await bildad.engine.killJob({ id: jobRunId })).toMatchObject({
      reason: 'Killed',
    });
  }
  await warm();
  await expect.poll(resources).toEqual(before);
});
