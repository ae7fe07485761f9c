import { Test, type TestingModule } from '@nestjs/testing';
import { BildadJob, JobEngineService, JobsService, type JobHandler } from 'nestjs-bildad';
import { BildadTesting, BildadTestingModule } from 'nestjs-bildad/testing';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { gate } from '../support/gate.js';
import { AppModule, MailJob } from './support/shop.js';

// A test in a transaction can take longer than the lease of its node.

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
  // A pass reads the new lease, and the next heartbeat writes it.
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

/** Waits for the heartbeats of two leases, as other nodes see them. */
async function waitForHeartbeats(count = 10): Promise<void> {
  const heartbeats = async () => {
    const [node] = await database.sql<{ heartbeats: string }>(
      'SELECT heartbeats FROM bildad.job_nodes WHERE ended_at IS NULL',
    );
    return Number(node?.heartbeats);
  };
  const first = await heartbeats();
  await expect.poll(heartbeats).toBeGreaterThanOrEqual(first + count);
}

it('the node keeps sending heartbeats and runs jobs', async () => {
  await waitForHeartbeats();
  const mail = { to: 'a@example.com', subject: 'x' };
  await engine.enqueueJob(MailJob, mail);
  expect(await testing.drain()).toMatchObject([{ outcome: 'completed' }]);
});

it('a job that runs longer than a lease is not lost', async () => {
  await engine.enqueueJob(LongJob, {});
  const drained = testing.drain();
  await LongJob.begun.opened;
  await waitForHeartbeats();
  await engine.runJobEngine();
  LongJob.done.open('done');
  expect(await drained).toMatchObject([{ outcome: 'completed', run: { output: 'done' } }]);
});
