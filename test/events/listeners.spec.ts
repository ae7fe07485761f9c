import { Controller, Injectable, Scope } from '@nestjs/common';
import {
  BildadConfigError,
  BildadJob,
  BildadModule,
  JobEvents,
  OnJobEvent,
  type JobEventMap,
} from 'nestjs-bildad';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { gate, type Gate } from '../support/gate.js';
import { SimpleJob } from '../support/handlers.js';
import { bootError, bootHost, QUIET } from '../support/host.js';

// @OnJobEvent methods: found at boot, called after the event, without effect on the job.

const calls: string[] = [];
let blockers: Gate[] = [];
let bildad: TestApp;
let open: TestApp | undefined;
beforeEach(() => {
  calls.length = 0;
  blockers = [];
});
afterEach(async () => {
  for (const blocker of blockers) blocker.open();
  await open?.close();
  open = undefined;
});

async function boot(options: Parameters<typeof bootApp>[0]): Promise<void> {
  open = bildad = await bootApp(options);
}

@BildadJob({ code: 'OTHER', maxRetries: 0 })
class OtherJob extends SimpleJob {}

@Injectable()
class EndListener {
  @OnJobEvent('run.succeeded')
  @OnJobEvent('run.failed')
  onEnd({ templateCode, outcome }: JobEventMap['run.finished'][0]) {
    calls.push(`${templateCode} ${outcome}`);
  }

  @OnJobEvent('run.finished', { code: OtherJob })
  onOtherEnd({ outcome }: { outcome: string }) {
    calls.push(`other ${outcome}`);
  }

  @OnJobEvent('engine.pass')
  onPass({ started }: { started: number }) {
    calls.push(`cycle ${started}`);
  }
}

@Controller()
class Listening {
  private readonly self = 'controller';

  @OnJobEvent('run.started', { code: 'SIMPLE' })
  started() {
    calls.push(this.self);
  }
}

let instances = 0;
@Injectable({ scope: Scope.REQUEST })
class RequestScoped {
  private readonly number = ++instances;

  @OnJobEvent('entry.enqueued')
  enqueued() {
    calls.push(`instance ${this.number}`);
  }
}

const run = async (job: typeof SimpleJob, context: object = {}) => {
  const { jobRunIdentifier } = await bildad.engine.enqueueJob(job, context);
  await bildad.engine.runJobEngine();
  await bildad.engine.waitForJob(jobRunIdentifier);
};
const received = () => expect.poll(() => calls.toSorted());

it('providers and controllers receive the events that they subscribe to', async () => {
  class Controllers {}
  await boot({
    providers: [SimpleJob, OtherJob, EndListener],
    imports: [{ module: Controllers, controllers: [Listening], providers: [EndListener] }],
  });
  await run(SimpleJob);
  await received().toEqual(['SIMPLE completed', 'controller', 'cycle 1']);
  calls.length = 0;
  await run(OtherJob, { fail: 'no' });
  await received().toEqual(['OTHER failed', 'cycle 1', 'other failed']);
});

it('a request-scoped listener has one instance per event', async () => {
  await boot({ providers: [SimpleJob, RequestScoped] });
  const from = instances;
  await bildad.engine.enqueueJobs(SimpleJob, [{}, {}]);
  await received().toEqual([`instance ${from + 1}`, `instance ${from + 2}`]);
});

it('a listener with `engine` receives the events of that engine only', async () => {
  @Injectable()
  class TwoEngineListener {
    @OnJobEvent('entry.enqueued', { engine: 'second' })
    second() {
      calls.push('second');
    }

    @OnJobEvent('entry.enqueued')
    anyEngine() {
      calls.push('every');
    }
  }
  const database = await createDatabase();
  const app = await bootHost({
    url: database.url,
    providers: [TwoEngineListener],
    bildad: ['first', 'second'].map((name) =>
      BildadModule.forRoot({ ...QUIET, name, schema: name, isGlobal: false }),
    ),
  });
  try {
    for (const events of app.get(JobEvents, { each: true, strict: false }))
      events.emit('entry.enqueued', {
        jobQueueEntryId: '1',
        jobRunIdentifier: 'one',
        templateCode: 'X',
      });
    await received().toEqual(['every', 'every', 'second']);
  } finally {
    await app.close();
    await database.drop();
  }
});

it('a failing listener is reported, and neither it nor a hanging one affects other listeners or jobs', async () => {
  @Injectable()
  class Bad {
    @OnJobEvent('run.started')
    throws(): void {
      throw new Error('thrown');
    }

    @OnJobEvent('run.started')
    async rejects(): Promise<void> {
      throw new Error('rejected');
    }

    @OnJobEvent('run.started')
    async hangs(): Promise<void> {
      const blocker = gate();
      blockers.push(blocker);
      await blocker.opened;
    }

    @OnJobEvent('engine.error')
    reporter({ error }: { error: unknown }): void {
      calls.push((error as Error).message);
      throw new Error('in circles');
    }
  }
  await boot({ providers: [SimpleJob, Bad, EndListener] });
  const errors: string[] = [];
  bildad.events.on('engine.error', ({ doing }) => errors.push(doing));
  await run(SimpleJob);
  await received().toEqual(['SIMPLE completed', 'cycle 1', 'rejected', 'thrown']);
  expect(errors.toSorted()).toEqual([
    '@OnJobEvent of Bad.rejects of run.started',
    '@OnJobEvent of Bad.throws of run.started',
  ]);
  expect(blockers).toHaveLength(1);
});

it('a burst beyond the queue limit is dropped, and the drop is reported once', async () => {
  let callCount = 0;
  @Injectable()
  class Slow {
    @OnJobEvent('entry.enqueued')
    async enqueued(): Promise<void> {
      callCount++;
      const blocker = gate();
      blockers.push(blocker);
      await blocker.opened;
    }
  }
  await boot({ providers: [Slow] });
  const errors: unknown[] = [];
  bildad.events.on('engine.error', ({ error }) => errors.push(error));
  const emitBurst = () => {
    for (let n = 0; n < 20_000; n++)
      bildad.events.emit('entry.enqueued', {
        jobQueueEntryId: String(n),
        jobRunIdentifier: String(n),
        templateCode: 'X',
      });
  };
  emitBurst();
  // No listener is called in the event-loop turn of the event itself.
  expect(callCount).toBe(0);
  await expect.poll(() => callCount).toBe(100);
  emitBurst();
  expect(errors).toEqual([new Error('events are dropped: 10000 are waiting already')]);
  for (const blocker of blockers.splice(0)) blocker.open();
  await expect.poll(() => callCount).toBe(200);
});

it('a shutdown waits for pending listeners, at most for drainTimeout', async () => {
  const began = gate();
  @Injectable()
  class Slow {
    @OnJobEvent('run.succeeded')
    async onEnd(): Promise<void> {
      began.open();
      const blocker = gate();
      blockers.push(blocker);
      await blocker.opened;
      calls.push('done');
    }
  }
  const options = { shutdown: { drainTimeout: '1h' } } as const;
  await boot({ providers: [SimpleJob, Slow], options });
  await run(SimpleJob);
  await began.opened;
  open = undefined;
  const closed = bildad.close().then(() => calls.push('closed'));
  setImmediate(() => blockers[0]!.open());
  await closed;
  expect(calls).toEqual(['done', 'closed']);

  await boot({
    providers: [SimpleJob, Slow],
    options: { shutdown: { drainTimeout: 0 } },
  });
  await run(SimpleJob);
  await expect.poll(() => blockers).toHaveLength(2);
  open = undefined;
  await bildad.close();
  expect(calls).toEqual(['done', 'closed']);
});

let database: TestDatabase;
it('an invalid @OnJobEvent fails the boot with an error that names the method', async () => {
  database = await createDatabase();
  const bootWith = (...args: Parameters<typeof OnJobEvent>) => {
    class Misdeclared {
      listen(): void {}
    }
    const { prototype } = Misdeclared;
    const own = Object.getOwnPropertyDescriptor(prototype, 'listen')!;
    OnJobEvent(...args)(prototype, 'listen', own);
    return bootError({ url: database.url, providers: [Misdeclared] });
  };
  const none = undefined as unknown as string;
  const errors = [
    await bootWith('run.done' as 'run.finished'),
    await bootWith('run.finished', { kode: 'X' } as object),
    await bootWith('run.finished', { from: 'mars' as 'here' }),
    await bootWith('engine.error', { from: 'cluster' }),
    await bootWith('engine.pass', { code: 'SIMPLE' }),
    await bootWith('run.finished', { code: none }),
    await bootWith('run.finished', { code: class {} as never }),
    await bootWith('run.finished', { engine: '' }),
  ];
  for (const error of errors) expect(error).toBeInstanceOf(BildadConfigError);
  expect(errors).toEqual(
    ['event', 'kode', 'from', 'from', 'code', 'code', 'code', 'engine'].map((field) =>
      expect.objectContaining({ field, where: '@OnJobEvent of Misdeclared.listen' }),
    ),
  );
  await database.drop();
  expect(() => OnJobEvent('run.finished')({}, 'x', {})).toThrow(/method/);
  expect(() => OnJobEvent('run.finished')(class {}, 'x', { value: () => 1 })).toThrow(/static/);
});

@Injectable()
class MutatingListener {
  @OnJobEvent('run.succeeded')
  onEnd(payload: object) {
    for (const key of Object.keys(payload)) Reflect.deleteProperty(payload, key);
  }
}

it('a listener that changes its payload does not affect other listeners', async () => {
  await boot({ providers: [SimpleJob, OtherJob, MutatingListener, EndListener] });
  await run(SimpleJob);
  await expect.poll(() => calls).toContain('SIMPLE completed');
});
