import {
  Catch,
  Inject,
  Injectable,
  Scope,
  UseGuards,
  UseInterceptors,
  type CallHandler,
  type CanActivate,
  type ExceptionFilter,
  type ExecutionContext,
  type NestInterceptor,
  type PipeTransform,
  type Provider,
} from '@nestjs/common';
import { APP_FILTER, APP_GUARD, APP_INTERCEPTOR, APP_PIPE, REQUEST } from '@nestjs/core';
import {
  BildadExecutionContext,
  BildadJob,
  BildadModule,
  JobEngineService,
  JobRequest,
  type JobHandler,
} from 'nestjs-bildad';
import { map } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase } from '../support/database.js';
import { bootError, QUIET } from '../support/host.js';
import { runOnce } from '../support/run-once.js';

// What is there for the whole app, and what must not be overlooked.

@Injectable()
class AppGuard implements CanActivate {
  canActivate(host: ExecutionContext) {
    const { blocked } = BildadExecutionContext.create(host).getContext<Said>();
    return !blocked;
  }
}

interface Said {
  blocked?: boolean;
  fail?: boolean;
}

@Injectable({ scope: Scope.REQUEST })
class AppInterceptor implements NestInterceptor {
  constructor(@Inject(REQUEST) private readonly request: JobRequest) {}

  intercept(_host: ExecutionContext, next: CallHandler) {
    const { retry } = this.request.job;
    return next.handle().pipe(map((said) => `${said} in retry ${retry}`));
  }
}

@Injectable()
class AppPipe implements PipeTransform {
  transform(said: Said) {
    return { ...said, piped: true };
  }
}

@Catch()
class AppFilter implements ExceptionFilter {
  static caught: unknown[] = [];

  catch(error: unknown) {
    AppFilter.caught.push(error);
  }
}

@BildadJob({ code: 'PLAIN', maxRetries: 0 })
class PlainJob implements JobHandler<Said> {
  runJob({ fail, ...said }: Said) {
    if (fail) throw new RangeError('told to');
    return JSON.stringify(said);
  }
}

const FOR_ALL: Provider[] = [
  { provide: APP_GUARD, useClass: AppGuard },
  { provide: APP_INTERCEPTOR, useClass: AppInterceptor },
  { provide: APP_PIPE, useClass: AppPipe },
  { provide: APP_FILTER, useClass: AppFilter },
];

async function withApp(
  globalEnhancers: boolean | undefined,
  test: (app: TestApp) => Promise<void>,
) {
  AppFilter.caught = [];
  const bildad = await bootApp({
    providers: [PlainJob, ...FOR_ALL],
    options: globalEnhancers === undefined ? {} : { globalEnhancers },
  });
  try {
    await test(bildad);
  } finally {
    await bildad.close();
  }
}

it('what is there for the whole app leaves jobs alone', () =>
  withApp(undefined, async (bildad) => {
    const { run } = await runOnce(bildad, PlainJob, { blocked: true });
    expect(run.output).toBe('{"blocked":true}');
    await runOnce(bildad, PlainJob, { fail: true });
    expect(AppFilter.caught).toEqual([]);
  }));

it('with globalEnhancers it stands around them, REQUEST-scoped too', () =>
  withApp(true, async (bildad) => {
    const { run } = await runOnce(bildad, PlainJob, {});
    expect(run.output).toBe('{"piped":true} in retry 0');
    const blocked = await runOnce(bildad, PlainJob, { blocked: true });
    expect(blocked.event.errorName).toBe('JobForbiddenError');
    await runOnce(bildad, PlainJob, { fail: true });
    expect(AppFilter.caught).toMatchObject([{ code: 'JOB_FORBIDDEN' }, { message: 'told to' }]);
  }));

describe('a guard that nobody would make', () => {
  @BildadJob({ code: 'MADE' })
  @UseGuards(AppGuard)
  class MadeJob implements JobHandler<Said> {
    runJob() {}
  }

  @Injectable({ scope: Scope.TRANSIENT })
  class TransientGuard extends AppGuard {}

  const boot = async (providers: Provider[], globalEnhancers = false) => {
    const database = await createDatabase();
    try {
      return (
        await bootError({
          url: database.url,
          providers,
          bildad: { globalEnhancers },
        })
      ).message;
    } finally {
      await database.drop();
    }
  };

  it('of a handler that a factory makes', async () => {
    const made = { provide: 'made', useFactory: () => new MadeJob() };
    expect(await boot([made])).toContain('@UseGuards(AppGuard) of MadeJob');
  });

  it('for the whole app, and TRANSIENT', async () => {
    const guard = { provide: APP_GUARD, useClass: TransientGuard };
    expect(await boot([PlainJob, guard], true)).toContain(
      'of PlainJob must have the scope DEFAULT or REQUEST',
    );
  });
});

it('two engines in one app have the same guard around their own handlers', async () => {
  @Injectable()
  class Counting implements NestInterceptor {
    static calls: string[] = [];

    intercept(host: ExecutionContext, next: CallHandler) {
      const { template } = BildadExecutionContext.create(host).getJob();
      Counting.calls.push(`${template.code} of ${host.getClass().name}`);
      return next.handle();
    }
  }

  @BildadJob({ code: 'ONE', engine: 'default' })
  @UseInterceptors(Counting)
  class OneJob implements JobHandler<object> {
    runJob() {}
  }

  @BildadJob({ code: 'OTHER', engine: 'other' })
  @UseInterceptors(Counting)
  class OtherJob implements JobHandler<object> {
    runJob() {}
  }

  @Injectable()
  class OneCaller {
    constructor(readonly engine: JobEngineService) {}
  }

  @Injectable()
  class OtherCaller {
    constructor(readonly engine: JobEngineService) {}
  }

  class OtherModule {}

  const bildad = await bootApp({
    providers: [OneJob, OneCaller],
    options: { tickInterval: '50ms' },
    imports: [
      {
        module: OtherModule,
        imports: [
          BildadModule.forRoot({
            ...QUIET,
            name: 'other',
            schema: 'other',
            isGlobal: false,
            tickInterval: '50ms',
          }),
        ],
        providers: [OtherJob, OtherCaller],
      },
    ],
  });
  try {
    for (const [caller, job] of [
      [OneCaller, OneJob],
      [OtherCaller, OtherJob],
    ] as const) {
      const { engine } = bildad.app.get<OneCaller>(caller);
      const { jobRunIdentifier } = await engine.enqueueJob(job, {});
      await engine.waitForJob(jobRunIdentifier);
    }
    expect(Counting.calls).toEqual(['ONE of OneJob', 'OTHER of OtherJob']);
  } finally {
    await bildad.close();
  }
});
