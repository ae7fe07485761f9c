import { Inject, Injectable, Module, Scope } from '@nestjs/common';
import { InjectRepository } from '@nestjs/typeorm';
import {
  BildadJob,
  JobHandlerNotFoundError,
  JobRun,
  type JobExecution,
  type JobHandler,
} from 'nestjs-bildad';
import type { Repository } from 'typeorm';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';

// Handlers are ordinary providers. The engine finds them in every module and creates them by their
// scope.

@Injectable({ scope: Scope.REQUEST })
class Session {
  static made = 0;
  readonly number = ++Session.made;
}

@Injectable({ scope: Scope.TRANSIENT })
class Scratch {
  static made = 0;
  readonly number = ++Scratch.made;
}

@BildadJob({ code: 'SINGLETON' })
class SingletonJob {
  static made = 0;
  readonly number = ++SingletonJob.made;

  runJob() {
    return this.number;
  }
}

@BildadJob({ code: 'REQUEST' })
@Injectable({ scope: Scope.REQUEST })
class RequestJob {
  static made = 0;
  readonly number = ++RequestJob.made;
  constructor(@Inject(Session) private readonly session: Session) {}

  runJob() {
    return [this.number, this.session.number];
  }
}

@BildadJob({ code: 'BY_DEPENDENCY' })
class DependingJob {
  constructor(@Inject(Session) private readonly session: Session) {}

  runJob() {
    return this.session.number;
  }
}

@BildadJob({ code: 'TRANSIENT' })
@Injectable({ scope: Scope.TRANSIENT })
class TransientJob {
  static made = 0;
  readonly number = ++TransientJob.made;

  runJob() {
    return this.number;
  }
}

@BildadJob({ code: 'WITH_SCRATCH' })
class ScratchJob {
  constructor(@Inject(Scratch) private readonly scratch: Scratch) {}

  runJob() {
    return this.scratch.number;
  }
}

@BildadJob({ code: 'FACTORY' })
class FactoryJob {
  constructor(private readonly greeting: string) {}

  runJob() {
    return this.greeting;
  }
}

@BildadJob({ code: 'ASYNC_FACTORY' })
class AsyncFactoryJob {
  runJob() {
    return 'made later';
  }
}

@BildadJob({ code: 'CLASS' })
class ClassJob {
  runJob() {
    return 'of a class';
  }
}

@BildadJob({ code: 'VALUE' })
class ValueJob {
  runJob() {
    return 'a value';
  }
}

@BildadJob({ code: 'BASE' })
class BaseJob {
  runJob() {
    return 'base';
  }
}
@Injectable()
class UndecoratedSubclass extends BaseJob {}
@BildadJob({ code: 'SUBCLASS' })
class DecoratedSubclass extends BaseJob {
  override runJob() {
    return 'subclass';
  }
}

@BildadJob({ code: 'REPOSITORY' })
class RepositoryJob implements JobHandler<object, string> {
  constructor(@InjectRepository(JobRun) private readonly runs: Repository<JobRun>) {}

  async runJob(_context: object, { jobRunId }: JobExecution) {
    return (await this.runs.findOneByOrFail({ id: jobRunId })).status;
  }
}

@BildadJob({ code: 'NESTED' })
class NestedJob {
  runJob() {
    return 'nested';
  }
}
@Module({ providers: [NestedJob] })
class InnerModule {}
@Module({ imports: [InnerModule] })
class MiddleModule {}
@Module({ imports: [MiddleModule], providers: [NestedJob] })
class OuterModule {}

@BildadJob({ code: 'NOT_PROVIDED' })
class NotProvidedJob {
  runJob() {}
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [
      Session,
      Scratch,
      SingletonJob,
      RequestJob,
      DependingJob,
      TransientJob,
      ScratchJob,
      { provide: FactoryJob, useFactory: () => new FactoryJob('hello') },
      {
        provide: 'later',
        useFactory: () => Promise.resolve(new AsyncFactoryJob()),
      },
      { provide: 'by class', useClass: ClassJob },
      { provide: 'by value', useValue: new ValueJob() },
      { provide: 'by another name', useExisting: SingletonJob },
      UndecoratedSubclass,
      DecoratedSubclass,
      RepositoryJob,
    ],
    imports: [OuterModule],
  });
});
afterAll(() => bildad.close());

async function output(code: string): Promise<unknown> {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(code, {}, { maxRetries: 0 });
  const ended = await engine.waitForJob(run.jobRunIdentifier);
  expect(ended).toMatchObject({ result: 'SUCCEEDED', reason: null });
  return ended.output;
}

const outputOfThreeRuns = async (code: string) => [
  await output(code),
  await output(code),
  await output(code),
];

it('one instance serves all runs, even with a second provider token', async () => {
  expect(await outputOfThreeRuns('SINGLETON')).toEqual([1, 1, 1]);
});

it('a REQUEST-scoped handler is created for each run, with its dependencies', async () => {
  const before = [RequestJob.made, Session.made] as const;
  const numbers = (await outputOfThreeRuns('REQUEST')) as [number, number][];
  expect(numbers).toEqual([
    [before[0] + 1, before[1] + 1],
    [before[0] + 2, before[1] + 2],
    [before[0] + 3, before[1] + 3],
  ]);
});

it('a handler with a REQUEST-scoped dependency is created for each run', async () => {
  expect(new Set(await outputOfThreeRuns('BY_DEPENDENCY')).size).toBe(3);
});

it('a transient handler is created for each run', async () => {
  expect(new Set(await outputOfThreeRuns('TRANSIENT')).size).toBe(3);
});

it('a handler with a transient dependency keeps its instance of it', async () => {
  expect(new Set(await outputOfThreeRuns('WITH_SCRATCH')).size).toBe(1);
});

it.each([
  ['FACTORY', 'hello'],
  ['ASYNC_FACTORY', 'made later'],
  ['CLASS', 'of a class'],
  ['VALUE', 'a value'],
  ['SUBCLASS', 'subclass'],
  ['REPOSITORY', 'RUNNING'],
  ['NESTED', 'nested'],
])('the handler %s is found', async (code, expected) => {
  expect(await output(code)).toBe(expected);
});

it('an undecorated subclass is not a handler', async () => {
  const codes = (await bildad.jobs.listJobTemplates({ limit: 100 })).map(({ code }) => code);
  expect(codes).not.toContain('BASE');
  expect(codes).toHaveLength(12);
});

it('a class that is not a provider is not a handler', async () => {
  await bildad.jobs.createJobTemplate({ code: 'NOT_PROVIDED' });
  await expect(bildad.engine.enqueueAndRunJob(NotProvidedJob, {})).rejects.toBeInstanceOf(
    JobHandlerNotFoundError,
  );
});
