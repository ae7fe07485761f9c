import { IsString } from 'class-validator';
import { BildadJob, type JobHandler } from 'nestjs-bildad';
import { expect, it } from 'vitest';
import { bootApp } from '../support/app.js';

// An operator can create a template before the first deploy of its class. Options that the class
// leaves at their defaults keep the operator's values.

@BildadJob({ code: 'LATER' })
class LaterJob implements JobHandler {
  runJob() {}
}

class NamedContext {
  @IsString() name!: string;
}

@BildadJob({
  code: 'EXACT',
  name: 'Exact',
  context: NamedContext,
  timeout: '2m',
  priority: 7,
})
class ExactJob implements JobHandler<NamedContext> {
  runJob() {}
}

const OPERATOR_VALUES = {
  name: 'Made first',
  displayOrder: 3,
  defaultTimeoutMs: 60_000,
  defaultMaxRetries: 9,
  defaultPriority: 1,
  defaultBackoff: { type: 'fixed', delay: '1s' },
  jobContextSchema: { required: ['name'] },
  encrypt: true,
} as const;
const encryption = {
  keys: { a: Buffer.alloc(32, 1) },
  current: 'a',
};

it("the operator's values are kept unless the class sets the option", async () => {
  const producer = await bootApp({ options: { encryption } });
  await producer.jobs.createJobTemplate({ code: 'LATER', ...OPERATOR_VALUES });
  await producer.jobs.createJobTemplate({ code: 'EXACT', ...OPERATOR_VALUES });
  const boot = async () => {
    const worker = await bootApp({
      database: producer.database,
      providers: [LaterJob, ExactJob],
      options: { encryption },
    });
    const templates = await worker.jobs.listJobTemplates();
    await worker.close();
    return (code: string) => templates.find((template) => template.code === code)!;
  };
  const first = await boot();
  expect(first('LATER')).toMatchObject({ ...OPERATOR_VALUES, jobModuleName: 'LaterJob' });
  expect(first('EXACT')).toMatchObject({
    ...OPERATOR_VALUES,
    name: 'Exact',
    jobModuleName: 'ExactJob',
    defaultTimeoutMs: 120_000,
    defaultPriority: 7,
    jobContextSchema: { type: 'object', required: ['name'] },
  });
  await expect(producer.engine.enqueueJob(LaterJob, { no: 'name' })).rejects.toThrow(/name/);
  const again = await boot();
  for (const code of ['LATER', 'EXACT']) expect(again(code)).toEqual(first(code));
  await producer.close();
});
