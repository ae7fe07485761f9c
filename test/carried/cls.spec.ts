import { BildadJob, type JobHandler } from 'nestjs-bildad';
import { carryCls } from 'nestjs-bildad/cls';
import { CLS_ID, ClsModule, ClsServiceManager, type ClsStore } from 'nestjs-cls';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { runOnce } from '../support/run-once.js';

// What nestjs-cls has where a job is enqueued, it has where it runs.

interface Store extends ClsStore {
  tenantId: string;
  user: { id: number; name: string };
  secret: string;
}
const cls = ClsServiceManager.getClsService<Store>();

let saw: unknown[] = [];
beforeEach(() => {
  saw = [];
});

@BildadJob({ code: 'IN_CLS', maxRetries: 0 })
class ClsJob implements JobHandler<object> {
  runJob() {
    saw.push({ id: cls.getId(), store: { ...cls.get() } });
    cls.set('tenantId', 'changed by the job');
  }
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    imports: [ClsModule.forRoot()],
    providers: [ClsJob],
    options: {
      tickInterval: '50ms',
      carry: { cls: carryCls<Store>({ keys: ['tenantId', 'user.id'] }) },
    },
  });
});
afterAll(() => bildad.close());

const inRequest = <T>(work: () => T) =>
  cls.run(() => {
    cls.set('tenantId', 'acme');
    cls.set('user', { id: 7, name: 'not carried' });
    cls.set('secret', 'not carried');
    return work();
  });

it('values, paths, and nothing else', async () => {
  const entry = await inRequest(() => bildad.engine.enqueueJob(ClsJob, {}));
  await bildad.engine.waitForJob(entry.jobRunIdentifier);
  expect(saw).toEqual([{ id: undefined, store: { tenantId: 'acme', user: { id: 7 } } }]);
});

it('the id', async () => {
  const entry = await cls.run(() => {
    cls.set(CLS_ID, 'request-1');
    return bildad.engine.enqueueJob(ClsJob, {});
  });
  await bildad.engine.waitForJob(entry.jobRunIdentifier);
  expect(saw).toMatchObject([{ id: 'request-1' }]);
});

it('a job that was enqueued in none has one of its own, also where it is set off in another', async () => {
  const { jobRunIdentifier } = await bildad.engine.enqueueJob(ClsJob, {});
  await inRequest(() => bildad.engine.waitForJob(jobRunIdentifier));
  expect(saw).toEqual([{ id: undefined, store: {} }]);
});

it('what a job sets stays with it', async () => {
  await inRequest(async () => {
    await runOnce(bildad, ClsJob, {});
    expect(cls.get('tenantId')).toBe('acme');
  });
});
