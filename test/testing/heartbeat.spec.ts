import { Test, type TestingModule } from '@nestjs/testing';
import { BildadJob, JobEngineService, JobsService, type JobHandler } from 'nestjs-bildad';
import { BildadTesting, BildadTestingModule } from 'nestjs-bildad/testing';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { gate } from '../support/gate.js';
import { AppModule, MailJob } from './support/shop.js';

// A test in a transaction that takes longer than a node is trusted without a beat.

@BildadJob({ code: 'LONG', maxRetries: 0 })
class LongJob implements JobHandler<object, string> {
  static readonly begun = gate();
  static readonly done = gate<string>();

  runJob() {
    LongJob.begun.open();
    return LongJob.done.opened;
  }
}

let database: TestDatabase;
let app: TestingModule;
let testing: BildadTesting;
let engine: JobEngineService;

beforeAll(async () => {
  database = await createDatabase();
  app = await Test.createTestingModule({
    imports: [AppModule.on(database.url), BildadTestingModule.forRoot()],
    providers: [LongJob],
  }).compile();
  await app.init();
  testing = app.get(BildadTesting);
  engine = app.get(JobEngineService, { strict: false });
  const jobs = app.get(JobsService, { strict: false });
  await jobs.updateJobConfig({ leaseMs: 2_000 });
  // A pass reads it, and the next heartbeat tells of it.
  await testing.drain();
  await vi.waitFor(
    async () =>
      expect(
        await database.sql(
          `SELECT FROM bildad.job_nodes WHERE renewed_until > clock_timestamp() + interval '2 s'`,
        ),
      ).toEqual([]),
    { timeout: 10_000 },
  );
});
afterAll(async () => {
  await app.close();
  await database.drop();
});
beforeEach(() => testing.begin());
afterEach(() => testing.rollback());

/** Waits for two leases of beats, as others see them. */
async function beats(count = 10): Promise<void> {
  const beat = async () => {
    const [node] = await database.sql<{ heartbeats: string }>(
      'SELECT heartbeats FROM bildad.job_nodes WHERE ended_at IS NULL',
    );
    return Number(node?.heartbeats);
  };
  const first = await beat();
  await expect.poll(beat).toBeGreaterThanOrEqual(first + count);
}

it('the node goes on beating, and runs jobs', async () => {
  await beats();
  const mail = { to: 'a@example.com', subject: 'x' };
  await engine.enqueueJob(MailJob, mail);
  expect(await testing.drain()).toMatchObject([{ outcome: 'completed' }]);
});

it('a job that runs for longer than a lease is not lost', async () => {
  await engine.enqueueJob(LongJob, {});
  const drained = testing.drain();
  await LongJob.begun.opened;
  await beats();
  await engine.runJobEngine();
  LongJob.done.open('done');
  expect(await drained).toMatchObject([{ outcome: 'completed', run: { output: 'done' } }]);
});
