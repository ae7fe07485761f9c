import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  Inject,
  Injectable,
  Scope,
  UseGuards,
  type CanActivate,
  type ExecutionContext,
} from '@nestjs/common';
import {
  ContextIdFactory,
  ModuleRef,
  REQUEST,
  type ContextId,
  type ContextIdStrategy,
  type HostComponentInfo,
} from '@nestjs/core';
import {
  BildadExecutionContext,
  BildadJob,
  JobRequest,
  type JobExecution,
  type JobHandler,
} from 'nestjs-bildad';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { gate } from '../support/gate.js';
import { runOnce } from '../support/run-once.js';

// The providers created for one run, and those that outlive it.

type Context = { tenant?: string; fail?: boolean };

@Injectable({ scope: Scope.REQUEST })
class Tenant {
  constructor(@Inject(REQUEST) readonly request: JobRequest<Context>) {
    if (request.context.fail) throw new RangeError('no such tenant');
  }

  get name() {
    return `${this.request.context.tenant} in ${this.request.job.jobRunIdentifier}`;
  }
}

@Injectable()
class Repository {
  constructor(readonly tenant: Tenant) {}
}

@BildadJob({ code: 'OF_TENANT', maxRetries: 0 })
class TenantJob implements JobHandler<Context, string> {
  constructor(
    private readonly repository: Repository,
    private readonly moduleRef: ModuleRef,
  ) {}

  async runJob() {
    const { tenant } = this.repository;
    const contextId = ContextIdFactory.getByRequest(tenant.request);
    const again = await this.moduleRef.resolve(Tenant, contextId);
    return again === tenant ? tenant.name : 'another instance';
  }
}

@Injectable({ scope: Scope.TRANSIENT })
class Label {
  static created = 0;
  readonly number = ++Label.created;
}

@BildadJob({ code: 'TRANSIENT_ONE', maxRetries: 0 })
@Injectable({ scope: Scope.TRANSIENT })
class TransientJob implements JobHandler<Context> {
  static created = 0;
  private calls = 0;
  constructor(readonly label: Label) {
    TransientJob.created++;
  }

  runJob() {
    return [++this.calls, this.label.number];
  }
}

@Injectable({ scope: Scope.REQUEST })
class TenantGuard implements CanActivate {
  constructor(private readonly tenant: Tenant) {}

  canActivate(host: ExecutionContext) {
    const { job } = this.tenant.request;
    return (
      BildadExecutionContext.create(host).getJob() === job &&
      this.tenant.request.context.tenant !== 'evil'
    );
  }
}

@BildadJob({ code: 'GUARDED_BY_SCOPE', maxRetries: 0 })
@UseGuards(TenantGuard)
class ScopeGuardedJob implements JobHandler<Context> {
  runJob() {
    return 'allowed';
  }
}

@Injectable({ scope: Scope.TRANSIENT })
class TransientGuard implements CanActivate {
  constructor(private readonly label: Label) {}

  canActivate() {
    return this.label.number > 0;
  }
}

@BildadJob({ code: 'GUARDED_BY_TRANSIENT', maxRetries: 0 })
@UseGuards(TransientGuard)
class TransientGuardedJob implements JobHandler<Context> {
  runJob() {
    return 'allowed';
  }
}

@BildadJob({ code: 'TRANSIENT_GUARDED', maxRetries: 0 })
@UseGuards(TransientGuard, TenantGuard)
@Injectable({ scope: Scope.TRANSIENT })
class TransientBothJob implements JobHandler<Context> {
  runJob() {
    return 'allowed';
  }
}

@Injectable({ scope: Scope.REQUEST, durable: true })
class TenantPool {
  static created: string[] = [];
  constructor(@Inject(REQUEST) { name }: { name: string }) {
    TenantPool.created.push(name);
  }
}

@BildadJob({ code: 'DURABLE', maxRetries: 0 })
@Injectable({ scope: Scope.REQUEST, durable: true })
class DurableJob implements JobHandler<Context> {
  private calls = 0;
  constructor(readonly pool: TenantPool) {}

  runJob() {
    return ++this.calls;
  }
}

class TenantContextIdStrategy implements ContextIdStrategy {
  private readonly parents = new Map<string, ContextId>();

  attach(contextId: ContextId, request: unknown) {
    const name =
      request instanceof JobRequest ? ((request.context as Context).tenant ?? 'none') : 'none';
    let parent = this.parents.get(name);
    if (!parent) this.parents.set(name, (parent = { id: Math.random() }));
    const tenantTree = parent;
    return {
      resolve: ({ isTreeDurable }: HostComponentInfo) => (isTreeDurable ? tenantTree : contextId),
      payload: { name },
    };
  }
}

@BildadJob({ code: 'MANY', maxRetries: 0 })
class ManyJob implements JobHandler<object> {
  static requests: WeakRef<object>[] = [];
  constructor(tenant: Tenant) {
    if (tenant.request) ManyJob.requests.push(new WeakRef(tenant.request));
  }

  runJob(_context: object, _job: JobExecution) {}
}

const SLOW_PROVIDER = Symbol('created slowly');
const creation = { begun: gate(), door: gate() };

@BildadJob({ code: 'SLOWLY_MADE', maxRetries: 0 })
@Injectable({ scope: Scope.REQUEST })
class SlowlyCreatedJob implements JobHandler<Context> {
  static calls = 0;
  constructor(@Inject(SLOW_PROVIDER) readonly _slow: string) {}

  runJob() {
    SlowlyCreatedJob.calls++;
  }
}

const slowProvider = {
  provide: SLOW_PROVIDER,
  scope: Scope.REQUEST,
  inject: [REQUEST],
  useFactory: async () => {
    creation.begun.open();
    await creation.door.opened;
    return 'slow';
  },
};

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [
      Tenant,
      Repository,
      TenantJob,
      Label,
      TransientJob,
      ScopeGuardedJob,
      TransientGuardedJob,
      TransientBothJob,
      TenantPool,
      DurableJob,
      ManyJob,
      SlowlyCreatedJob,
      slowProvider,
    ],
    options: { concurrency: 50, tickInterval: '50ms' },
  });
});
afterAll(() => bildad.close());
afterEach(() => ContextIdFactory.apply(undefined as never));

it('REQUEST is the job in every provider of a run', async () => {
  const [a, b] = await Promise.all([
    bildad.engine.enqueueJob(TenantJob, { tenant: 'a' }),
    bildad.engine.enqueueJob(TenantJob, { tenant: 'b' }),
  ]);
  for (const [tenant, { jobRunIdentifier }] of Object.entries({ a, b })) {
    const run = await bildad.engine.waitForJob(jobRunIdentifier);
    expect(run.output).toBe(`${tenant} in ${jobRunIdentifier}`);
  }
});

it('a constructor that throws fails the run', async () => {
  for (const job of [TenantJob, ScopeGuardedJob]) {
    const { event, run } = await runOnce(bildad, job, { fail: true });
    expect(event).toMatchObject({ outcome: 'failed', errorName: 'RangeError' });
    expect(run.reason).toContain('no such tenant');
  }
});

it('a TRANSIENT handler is created for each run', async () => {
  const before = TransientJob.created;
  const first = await runOnce(bildad, TransientJob, {});
  const second = await runOnce(bildad, TransientJob, {});
  expect(TransientJob.created).toBe(before + 2);
  const [[calls, label], [calls2, label2]] = [first, second].map(
    ({ run }) => run.output as [number, number],
  ) as [[number, number], [number, number]];
  expect([calls, calls2]).toEqual([1, 1]);
  expect(label2).not.toBe(label);
});

it('a REQUEST-scoped guard works on a handler with the default scope', async () => {
  const good = await runOnce(bildad, ScopeGuardedJob, { tenant: 'good' });
  expect(good.run.output).toBe('allowed');
  const evil = await runOnce(bildad, ScopeGuardedJob, { tenant: 'evil' });
  expect(evil.event.errorName).toBe('JobForbiddenError');
});

it.each([TransientGuardedJob, TransientBothJob])(
  'a TRANSIENT guard receives its dependencies: %o',
  async (job) => {
    const { run } = await runOnce(bildad, job, {});
    expect(run).toMatchObject({ result: 'SUCCEEDED', output: 'allowed' });
  },
);

it('jobs of one tenant share durable providers', async () => {
  ContextIdFactory.apply(new TenantContextIdStrategy());
  const calls = [];
  for (const tenant of ['a', 'b', 'a', 'a'])
    calls.push((await runOnce(bildad, DurableJob, { tenant })).run.output);
  expect(calls).toEqual([1, 1, 2, 3]);
  expect(TenantPool.created).toEqual(['a', 'b']);
});

it('the providers of a run are garbage-collected after it', async () => {
  const RUNS = 500;
  await bildad.engine.enqueueJobs(
    ManyJob,
    Array.from({ length: RUNS }, () => ({})),
  );
  await expect.poll(() => ManyJob.requests.length).toBe(RUNS);
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  await expect
    .poll(() => {
      gc();
      return ManyJob.requests.filter((one) => one.deref()).length;
    })
    .toBeLessThan(RUNS / 10);
});

it('the handler is not called when its run has ended during its creation', async () => {
  await bildad.engine.enqueueJob(SlowlyCreatedJob, {});
  await creation.begun.opened;
  const [run] = await bildad.jobs.listRunningJobRuns();
  await bildad.engine.killJob(run!);
  const started: unknown[] = [];
  const off = bildad.events.on('run.started', (event) => started.push(event));
  const ended = bildad.next('process.ended');
  creation.door.open();
  await ended;
  off();
  expect(started).toEqual([]);
  expect(SlowlyCreatedJob.calls).toBe(0);
});
