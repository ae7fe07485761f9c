import { BildadJob, type BildadModuleOptions } from 'nestjs-bildad';
import { expect, it } from 'vitest';
import { bootApp } from '../support/app.js';

// Wrong options are rejected at boot, and the error names the option.

it.each([
  ['yes', 'transactional'],
  [{ isolation: 'CHAOS' }, 'transactional.isolation'],
  [{ level: 'SERIALIZABLE' }, 'transactional.level'],
])('transactional: %j is rejected', async (transactional, field) => {
  @BildadJob({ code: 'WRONG', transactional: transactional as never })
  class WrongJob {
    runJob(): void {}
  }
  await expect(bootApp({ providers: [WrongJob] })).rejects.toMatchObject({
    code: 'BILDAD_CONFIG',
    field,
    where: '@BildadJob of WrongJob',
  });
});

it('a currentManager that is not a function is rejected', async () => {
  const options = {
    currentManager: 'manager',
  } as unknown as BildadModuleOptions;
  await expect(bootApp({ options })).rejects.toMatchObject({
    code: 'BILDAD_CONFIG',
    field: 'currentManager',
  });
});

it('a handler without a transaction has no job.manager', async () => {
  @BildadJob({ code: 'WITHOUT', maxRetries: 0 })
  class WithoutJob {
    runJob(_context: object, job: { manager: unknown }): unknown {
      return job.manager;
    }
  }
  const bildad = await bootApp({ providers: [WithoutJob] });
  const run = await bildad.engine.enqueueAndRunJob(WithoutJob, {});
  const ended = await bildad.engine.waitForJob(run.jobRunIdentifier);
  expect(ended.reason).toMatch(
    /^job\.manager is only available in a transactional job: declare @BildadJob\(\{ code: 'WITHOUT', transactional: true \}\)/,
  );
  await bildad.close();
});

it('engine.transaction rejects a value that is not a function', async () => {
  const bildad = await bootApp();
  await expect(bildad.engine.transaction('work' as never)).rejects.toMatchObject({
    code: 'BILDAD_CONFIG',
    field: 'work',
  });
  await bildad.close();
});
