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

// Methods that listen to the engine: found at boot, called after the fact, nothing to the job.

const heard: string[] = [];
let doors: Gate[] = [];
let bildad: TestApp;
let open: TestApp | undefined;
beforeEach(() => {
  heard.length = 0;
  doors = [];
});
afterEach(async () => {
  for (const door of doors) door.open();
  await open?.close();
  open = undefined;
});

async function boot(options: Parameters<typeof bootApp>[0]): Promise<void> {
  open = bildad = await bootApp(options);
}

@BildadJob({ code: 'OTHER', maxRetries: 0 })
class OtherJob extends SimpleJob {}

@Injectable()
class Ends {
  @OnJobEvent('run.succeeded')
  @OnJobEvent('run.failed')
  over({ templateCode, outcome }: JobEventMap['run.finished'][0]) {
    heard.push(`${templateCode} ${outcome}`);
  }

  @OnJobEvent('run.finished', { code: OtherJob })
  other({ outcome }: { outcome: string }) {
    heard.push(`other ${outcome}`);
  }

  @OnJobEvent('engine.pass')
  cycle({ started }: { started: number }) {
    heard.push(`cycle ${started}`);
  }
}

@Controller()
class Listening {
  private readonly self = 'controller';

  @OnJobEvent('run.started', { code: 'SIMPLE' })
  started() {
    heard.push(this.self);
  }
}

let instances = 0;
@Injectable({ scope: Scope.REQUEST })
class PerEvent {
  private readonly number = ++instances;

  @OnJobEvent('entry.enqueued')
  enqueued() {
    heard.push(`instance ${this.number}`);
  }
}

const run = async (job: typeof SimpleJob, context: object = {}) => {
  const { jobRunIdentifier } = await bildad.engine.enqueueJob(job, context);
  await bildad.engine.runJobEngine();
  await bildad.engine.waitForJob(jobRunIdentifier);
};
const told = () => expect.poll(() => heard.toSorted());

it('providers and controllers hear what they ask for', async () => {
  class Controllers {}
  await boot({
    providers: [SimpleJob, OtherJob, Ends],
    imports: [{ module: Controllers, controllers: [Listening], providers: [Ends] }],
  });
  await run(SimpleJob);
  await told().toEqual(['SIMPLE completed', 'controller', 'cycle 1']);
  heard.length = 0;
  await run(OtherJob, { fail: 'no' });
  await told().toEqual(['OTHER failed', 'cycle 1', 'other failed']);
});

it('a request-scoped one has an instance for each event', async () => {
  await boot({ providers: [SimpleJob, PerEvent] });
  const from = instances;
  await bildad.engine.enqueueJobs(SimpleJob, [{}, {}]);
  await told().toEqual([`instance ${from + 1}`, `instance ${from + 2}`]);
});

it('listens to the engine that it names', async () => {
  @Injectable()
  class OfTwo {
    @OnJobEvent('entry.enqueued', { engine: 'second' })
    second() {
      heard.push('second');
    }

    @OnJobEvent('entry.enqueued')
    every() {
      heard.push('every');
    }
  }
  const database = await createDatabase();
  const app = await bootHost({
    url: database.url,
    providers: [OfTwo],
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
    await told().toEqual(['every', 'every', 'second']);
  } finally {
    await app.close();
    await database.drop();
  }
});

it('one that fails is told of, and one that hangs is nothing to others, nor to jobs', async () => {
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
      const door = gate();
      doors.push(door);
      await door.opened;
    }

    @OnJobEvent('engine.error')
    reporter({ error }: { error: unknown }): void {
      heard.push((error as Error).message);
      throw new Error('in circles');
    }
  }
  await boot({ providers: [SimpleJob, Bad, Ends] });
  const errors: string[] = [];
  bildad.events.on('engine.error', ({ doing }) => errors.push(doing));
  await run(SimpleJob);
  await told().toEqual(['SIMPLE completed', 'cycle 1', 'rejected', 'thrown']);
  expect(errors.toSorted()).toEqual([
    '@OnJobEvent of Bad.rejects of run.started',
    '@OnJobEvent of Bad.throws of run.started',
  ]);
  expect(doors).toHaveLength(1);
});

it('a storm is kept up with as far as there is room, and the rest said to be dropped, once', async () => {
  let calls = 0;
  @Injectable()
  class Slow {
    @OnJobEvent('entry.enqueued')
    async enqueued(): Promise<void> {
      calls++;
      const door = gate();
      doors.push(door);
      await door.opened;
    }
  }
  await boot({ providers: [Slow] });
  const errors: unknown[] = [];
  bildad.events.on('engine.error', ({ error }) => errors.push(error));
  const storm = () => {
    for (let n = 0; n < 20_000; n++)
      bildad.events.emit('entry.enqueued', {
        jobQueueEntryId: String(n),
        jobRunIdentifier: String(n),
        templateCode: 'X',
      });
  };
  storm();
  // Not one in the turn of the event itself.
  expect(calls).toBe(0);
  await expect.poll(() => calls).toBe(100);
  storm();
  expect(errors).toEqual([new Error('events are dropped: 10000 are waiting already')]);
  for (const door of doors.splice(0)) door.open();
  await expect.poll(() => calls).toBe(200);
});

it('a shutdown gives calls that are left their time, and no more', async () => {
  const began = gate();
  @Injectable()
  class Slow {
    @OnJobEvent('run.succeeded')
    async over(): Promise<void> {
      began.open();
      const door = gate();
      doors.push(door);
      await door.opened;
      heard.push('done');
    }
  }
  const options = { shutdown: { drainTimeout: '1h' } } as const;
  await boot({ providers: [SimpleJob, Slow], options });
  await run(SimpleJob);
  await began.opened;
  open = undefined;
  const closed = bildad.close().then(() => heard.push('closed'));
  setImmediate(() => doors[0]!.open());
  await closed;
  expect(heard).toEqual(['done', 'closed']);

  await boot({
    providers: [SimpleJob, Slow],
    options: { shutdown: { drainTimeout: 0 } },
  });
  await run(SimpleJob);
  await expect.poll(() => doors).toHaveLength(2);
  open = undefined;
  await bildad.close();
  expect(heard).toEqual(['done', 'closed']);
});

let database: TestDatabase;
it('what is wrong keeps the app from starting, and says where it stands', async () => {
  database = await createDatabase();
  const wrong = (...args: Parameters<typeof OnJobEvent>) => {
    class Wrong {
      listen(): void {}
    }
    const { prototype } = Wrong;
    const own = Object.getOwnPropertyDescriptor(prototype, 'listen')!;
    OnJobEvent(...args)(prototype, 'listen', own);
    return bootError({ url: database.url, providers: [Wrong] });
  };
  const none = undefined as unknown as string;
  const errors = [
    await wrong('run.done' as 'run.finished'),
    await wrong('run.finished', { kode: 'X' } as object),
    await wrong('run.finished', { from: 'mars' as 'here' }),
    await wrong('engine.error', { from: 'cluster' }),
    await wrong('engine.pass', { code: 'SIMPLE' }),
    await wrong('run.finished', { code: none }),
    await wrong('run.finished', { code: class {} as never }),
    await wrong('run.finished', { engine: '' }),
  ];
  for (const error of errors) expect(error).toBeInstanceOf(BildadConfigError);
  expect(errors).toEqual(
    ['event', 'kode', 'from', 'from', 'code', 'code', 'code', 'engine'].map((field) =>
      expect.objectContaining({ field, where: '@OnJobEvent of Wrong.listen' }),
    ),
  );
  await database.drop();
  expect(() => OnJobEvent('run.finished')({}, 'x', {})).toThrow(/method/);
  expect(() => OnJobEvent('run.finished')(class {}, 'x', { value: () => 1 })).toThrow(/static/);
});

@Injectable()
class Spoils {
  @OnJobEvent('run.succeeded')
  over(payload: object) {
    for (const key of Object.keys(payload)) Reflect.deleteProperty(payload, key);
  }
}

it('what a listener does to its payload is nothing to others', async () => {
  await boot({ providers: [SimpleJob, OtherJob, Spoils, Ends] });
  await run(SimpleJob);
  await expect.poll(() => heard).toContain('SIMPLE completed');
});
