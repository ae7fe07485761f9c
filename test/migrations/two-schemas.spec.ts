import { Injectable, Module, type INestApplicationContext } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import {
  bildadEntities,
  BildadJob,
  BildadModule,
  JobEngineService,
  JobRun,
  JobsService,
  JobTemplateNotFoundError,
} from 'nestjs-bildad';
import { DataSource, Repository } from 'typeorm';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createEmptyDatabase, type TestDatabase } from '../support/database.js';
import { bootHost, QUIET } from '../support/host.js';

// Two engines in one app, each with its own schema. Neither sees the other's handlers, jobs or
// tables.

@BildadJob({ code: 'WORK', engine: 'mail' })
class MailJob {
  runJob() {
    return 'mailed';
  }
}

@BildadJob({ code: 'WORK', engine: 'billing' })
class BillingJob {
  runJob() {
    return 'billed';
  }
}

@BildadJob({ code: 'BILL_ONLY', engine: 'billing' })
class BillOnlyJob {
  runJob() {}
}

@Injectable()
class Office {
  constructor(
    readonly engine: JobEngineService,
    readonly jobs: JobsService,
    @InjectRepository(JobRun) readonly runs: Repository<JobRun>,
  ) {}
}

class Mail extends Office {}
class Billing extends Office {}
Injectable()(Mail);
Injectable()(Billing);

const engineOf = (name: string) =>
  BildadModule.forRoot({ ...QUIET, name, schema: name, isGlobal: false });

@Module({ imports: [engineOf('mail')], providers: [Mail, MailJob] })
class MailModule {}

@Module({
  imports: [engineOf('billing')],
  providers: [Billing, BillingJob, BillOnlyJob],
})
class BillingModule {}

let database: TestDatabase;
let app: INestApplicationContext;
let mail: Mail;
let billing: Billing;
beforeAll(async () => {
  database = await createEmptyDatabase();
  app = await bootHost({
    url: database.url,
    bildad: [],
    imports: [MailModule, BillingModule],
  });
  mail = app.get(Mail, { strict: false });
  billing = app.get(Billing, { strict: false });
});
afterAll(async () => {
  await app.close();
  await database.drop();
});

const outputOf = async ({ engine }: Office, job: 'WORK') => {
  const { jobRunIdentifier } = await engine.enqueueAndRunJob(job, {});
  return (await engine.waitForJob(jobRunIdentifier)).output;
};

it('each engine runs its own handler of the same code', async () => {
  expect(await outputOf(mail, 'WORK')).toBe('mailed');
  expect(await outputOf(billing, 'WORK')).toBe('billed');
});

it('each engine has its own templates', async () => {
  const codes = async ({ jobs }: Office) =>
    (await jobs.listJobTemplates()).map(({ code }) => code).toSorted();
  expect(await codes(mail)).toEqual(['WORK']);
  expect(await codes(billing)).toEqual(['BILL_ONLY', 'WORK']);
  await expect(mail.engine.enqueueJob(BillOnlyJob, {})).rejects.toBeInstanceOf(
    JobTemplateNotFoundError,
  );
});

it('each engine claims from its own queue', async () => {
  const entry = await billing.engine.enqueueJob('WORK', {});
  expect((await mail.engine.runJobEngine()).start).toEqual([]);
  expect((await billing.engine.runJobEngine()).start).toMatchObject([
    { ok: true, jobRun: { jobRunIdentifier: entry.jobRunIdentifier } },
  ]);
  await billing.engine.waitForJob(entry.jobRunIdentifier);
});

it('a repository of JobRun in a feature module uses the schema of its engine', async () => {
  const outputs = async ({ runs }: Office) =>
    new Set((await runs.find()).map(({ output }) => output));
  expect(await outputs(mail)).toEqual(new Set(['mailed']));
  expect(await outputs(billing)).toEqual(new Set(['billed']));
});

it('the DataSource distinguishes the engines by the entities of their schemas', async () => {
  const source = app.get(DataSource);
  const runsIn = (schema: string) => source.getRepository(bildadEntities(schema).JobRun).find();
  expect((await runsIn('mail')).map(({ output }) => output)).toEqual(['mailed']);
  expect((await runsIn('billing')).map(({ output }) => output)).not.toContain('mailed');
  // Without a schema the choice between the two would be ambiguous.
  expect(source.hasMetadata(JobRun)).toBe(false);
});
