import { randomBytes } from 'node:crypto';
import { Test, type TestingModule } from '@nestjs/testing';
import {
  BildadConfigError,
  BildadJob,
  JobEngineService,
  JobTemplateNotFoundError,
  type JobHandler,
} from 'nestjs-bildad';
import { BildadTesting, BildadTestingModule } from 'nestjs-bildad/testing';
import 'nestjs-bildad/testing/vitest';
import { Type } from 'class-transformer';
import { IsDate, IsOptional, IsString } from 'class-validator';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { AppModule, MailJob, ShipJob } from './support/shop.js';

// The jobs that the matchers find, and the messages of failing matchers.

@BildadJob({ code: 'SECRET', encrypt: true })
class SecretJob implements JobHandler<object> {
  runJob() {}
}

class DatedContext {
  @Type(() => Date) @IsDate() at!: Date;
  @IsOptional() @IsString() note?: string | undefined;
  @IsString() by!: string;
}

@BildadJob({ code: 'DATED', context: DatedContext })
class DatedJob implements JobHandler<DatedContext> {
  runJob() {}
}

let database: TestDatabase;
let app: TestingModule;
let testing: BildadTesting;
const soon = new Date(Date.now() + 3_600_000);

beforeAll(async () => {
  database = await createDatabase();
  const keys = { k: randomBytes(32).toString('base64') };
  app = await Test.createTestingModule({
    imports: [
      AppModule.on(database.url, { encryption: { keys, current: 'k' } }),
      BildadTestingModule.forRoot(),
    ],
    providers: [SecretJob, DatedJob],
  }).compile();
  await app.init();
  testing = app.get(BildadTesting);
  const engine = app.get(JobEngineService, { strict: false });
  const mail = (to: string) => ({ to, subject: 'hello' });
  await engine.enqueueJob(MailJob, mail('done@example.com'));
  await testing.drain();
  await engine.enqueueJob(MailJob, mail('a@example.com'), { priority: 2 });
  await engine.enqueueJob(MailJob, mail('b@example.com'), { runAt: soon });
  await engine.enqueueJob(SecretJob, { pin: 1 });
});
afterAll(async () => {
  await app.close();
  await database.drop();
});

const messageOf = (assertion: Promise<unknown>) =>
  assertion.then(
    () => 'nothing',
    (error: Error) => error.message,
  );

it('the matchers find jobs by class or code and by part of their context, with asymmetric matchers', async () => {
  await expect(testing).toHaveEnqueued(MailJob);
  await expect(testing).toHaveEnqueued('MAIL', { to: 'a@example.com' });
  await expect(testing).toHaveEnqueued(MailJob, {
    to: expect.stringContaining('@example') as string,
    subject: 'hello',
  });
  await expect(testing).not.toHaveEnqueued(ShipJob);
  await expect(testing).not.toHaveEnqueued(MailJob, { to: 'c@example.com' });
  await expect(testing).not.toHaveEnqueued(MailJob, { to: undefined });
});

it('the matchers find finished jobs', async () => {
  await expect(testing).toHaveEnqueued(MailJob, { to: 'done@example.com' }, { status: 'DONE' });
});

it('the matchers count jobs', async () => {
  await expect(testing).toHaveEnqueuedTimes(MailJob, 3);
  await expect(testing).toHaveEnqueuedTimes(MailJob, 1, {
    to: 'b@example.com',
  });
  await expect(testing).toHaveEnqueuedTimes(ShipJob, 0);
  await expect(await testing.enqueued()).toHaveEnqueuedTimes(SecretJob, 1);
});

it('the matchers compare options', async () => {
  await expect(testing).toHaveEnqueued(MailJob, undefined, {
    priority: 2,
    status: 'AVAILABLE',
    engine: 'default',
  });
  await expect(testing).toHaveEnqueued(MailJob, {}, { runAt: soon });
  await expect(testing).not.toHaveEnqueued(MailJob, {}, { priority: 7 });
  await expect(expect(testing).toHaveEnqueued(MailJob, {}, { prio: 1 } as object)).rejects.toThrow(
    /prio/,
  );
});

it('a failing matcher lists the jobs that were enqueued', async () => {
  const message = await messageOf(expect(testing).toHaveEnqueued(MailJob, { to: 'c@example.com' }));
  expect(message).toContain('asked for at least one of: MAIL');
  expect(message).toContain('c@example.com');
  expect(message).toContain('a@example.com');
  expect(message).toContain('enqueued (4)');
  expect(message).not.toContain('pin');
  expect(await messageOf(expect(testing).not.toHaveEnqueued(MailJob))).toContain('fitting: 3');
  await testing.inTransaction(async () => {
    await testing.clear();
    const none = await testing.enqueued();
    expect(none).toStrictEqual([]);
    await expect(none).not.toHaveEnqueued(MailJob);
    expect(await messageOf(expect(none).toHaveEnqueued(MailJob))).toContain('nothing was enqueued');
  });
});

it('the matchers reject encrypted contexts, other received values and classes without @BildadJob', async () => {
  await expect(testing).toHaveEnqueued(SecretJob);
  await expect(expect(testing).toHaveEnqueued(SecretJob, { pin: 1 })).rejects.toThrow(
    /are encrypted/,
  );
  await expect(expect('x').toHaveEnqueued(MailJob)).rejects.toThrow(/BildadTesting/);
  class NoJob {}
  await expect(expect(testing).toHaveEnqueued(NoJob as never)).rejects.toThrow(/@BildadJob/);
});

it('the matchers compare with stored values: Dates are text, and undefined properties are missing', async () => {
  const engine = app.get(JobEngineService, { strict: false });
  const at = new Date(1_000);
  const entry = await engine.enqueueJob(DatedJob, {
    at,
    note: undefined,
    by: 'ada',
  });
  await expect(testing).toHaveEnqueued(DatedJob, { at, note: undefined });
  const by = expect.any(String) as string;
  await expect(testing).toHaveEnqueued(DatedJob, { by });
  for (const other of [{ at: new Date(2_000) }, { by: undefined }])
    await expect(testing).not.toHaveEnqueued(DatedJob, other);
  await engine.removeJobFromQueue(entry);
  await expect(testing).not.toHaveEnqueued(DatedJob);
});

it('the matchers reject codes, statuses and engines that cannot exist', async () => {
  for (const received of [testing, await testing.enqueued()]) {
    await expect(expect(received).not.toHaveEnqueued('MIAL')).rejects.toBeInstanceOf(
      JobTemplateNotFoundError,
    );
    for (const like of [{ status: 'available' }, { engine: 'nope' }])
      await expect(
        expect(received).not.toHaveEnqueued(MailJob, {}, like as object),
      ).rejects.toBeInstanceOf(BildadConfigError);
  }
  const runs = [{ code: 'MAIL', outcome: 'completed', run: {} }];
  const some = (await testing.enqueued()).filter(({ code }) => code === 'MAIL');
  for (const list of [runs, [], some, await testing.drain()])
    await expect(expect(list).not.toHaveEnqueued(MailJob)).rejects.toThrow(
      /the list that its enqueued\(\) returns/,
    );
});
