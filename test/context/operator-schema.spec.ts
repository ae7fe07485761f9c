import { IsString } from 'class-validator';
import { BildadJob, type JobHandler } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';

// A schema that an operator sets on a template is enforced in addition to the class. A schema that
// a deploy declared is not, so that old and new nodes of a rolling deploy accept each other's
// contexts.

class GreetingContext {
  @IsString() name!: string;
}

@BildadJob({ code: 'GREETING', context: GreetingContext })
class GreetingJob implements JobHandler<GreetingContext> {
  runJob({ name }: GreetingContext): string {
    return `hello ${name}`;
  }
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GreetingJob] });
});
afterAll(() => bildad.close());

it("an operator's schema is enforced at enqueue and before launch until the operator removes it", async () => {
  const { engine, jobs } = bildad;
  const [template] = await jobs.listJobTemplates();
  const before = await engine.enqueueJob(GreetingJob, { name: 'too long' });
  await jobs.updateJobTemplate(template!, {
    jobContextSchema: { properties: { name: { maxLength: 3 } } },
  });

  await expect(engine.enqueueJob(GreetingJob, { name: 'long' })).rejects.toMatchObject({
    code: 'INVALID_JOB_CONTEXT',
    violations: [{ path: 'name' }],
  });
  expect((await engine.runJobEngine()).start).toMatchObject([
    { ok: false, error: { code: 'INVALID_JOB_CONTEXT' } },
  ]);
  expect(await engine.waitForJob(before.jobRunIdentifier)).toMatchObject({
    result: 'FAILED',
  });

  await jobs.updateJobTemplate(template!, {
    jobContextSchema: template!.jobContextSchema,
  });
  const run = await engine.enqueueAndRunJob(GreetingJob, { name: 'everybody' });
  expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
    output: 'hello everybody',
  });
});

it('an unusable schema written with SQL fails the run and keeps the entry', async () => {
  const { engine, jobs, sql } = bildad;
  const entry = await engine.enqueueJob(GreetingJob, { name: 'x' });
  await sql(`UPDATE bildad.job_templates SET job_context_schema = '{"type": "nonsense"}'`);
  expect((await engine.runJobEngine()).start).toMatchObject([
    { ok: false, error: { code: 'INVALID_JOB_SCHEMA' } },
  ]);
  expect(await jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier)).toMatchObject({
    status: 'AVAILABLE',
    retry: 1,
  });
});

it('a schema declared by a newer deploy does not reject a context that this class accepts', async () => {
  const { engine, sql } = bildad;
  await sql(
    `UPDATE bildad.job_templates SET job_context_schema = '{"required": ["surname"]}',
       declared = jsonb_set(declared, '{jobContextSchema}', '{"required": ["surname"]}')`,
  );
  const run = await engine.enqueueAndRunJob(GreetingJob, { name: 'old' });
  expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
    output: 'hello old',
  });
});
