import { BildadJob, type JobHandler } from 'nestjs-bildad';
import { carryCls } from 'nestjs-bildad/cls';
import { CLS_ID, ClsModule, ClsServiceManager, type ClsStore } from 'nestjs-cls';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { runOnce } from '../support/run-once.js';

// The store of nestjs-cls at enqueue is available while the job runs (carryCls).

interface Store extends ClsStore {
  tenantId: string;
  user: { id: number; name: string };
  secret: string;
}
const cls = ClsServiceManager.getClsService<Store>();

let recorded: unknown[] = [];
beforeEach(() => {
  recorded = [];
});

@BildadJob({ code: 'IN_CLS', maxRetries: 0 })
class ClsJob implements JobHandler<object> {
  runJob() {
    recorded.push({ id: cls.getId(), store: { ...cls.get() } });
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
    cls.set('user', { id: 7, name: 'not propagated' });
    cls.set('secret', 'not propagated');
    return work();
  });

it('the listed values and paths are propagated, and no others', async () => {
  const entry = await inRequest(() => bildad.engine.enqueueJob(ClsJob, {}));
  await bildad.engine.waitForJob(entry.jobRunIdentifier);
  expect(recorded).toEqual([{ id: undefined, store: { tenantId: 'acme', user: { id: 7 } } }]);
});

it('the id is propagated', async () => {
  const entry = await cls.run(() => {
    cls.set(CLS_ID, 'request-1');
    return bildad.engine.enqueueJob(ClsJob, {});
  });
  await bildad.engine.waitForJob(entry.jobRunIdentifier);
  expect(recorded).toMatchObject([{ id: 'request-1' }]);
});

it('a job enqueued outside a store has an empty store, even when started inside one', async () => {
  const { jobRunIdentifier } = await bildad.engine.enqueueJob(ClsJob, {});
  await inRequest(() => bildad.engine.waitForJob(jobRunIdentifier));
  expect(recorded).toEqual([{ id: undefined, store: {} }]);
});

it('changes by the job stay in its own store', async () => {
  await inRequest(async () => {
    await runOnce(bildad, ClsJob, {});
    expect(cls.get('tenantId')).toBe('acme');
  });
});
