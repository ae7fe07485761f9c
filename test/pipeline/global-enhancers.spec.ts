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

// Enhancers for the whole app, and enhancers that cannot be resolved.

@Injectable()
class AppGuard implements CanActivate {
  canActivate(host: ExecutionContext) {
    const { blocked } = BildadExecutionContext.create(host).getContext<PlainContext>();
    return !blocked;
  }
}

interface PlainContext {
  blocked?: boolean;
  fail?: boolean;
}

@Injectable({ scope: Scope.REQUEST })
class AppInterceptor implements NestInterceptor {
  constructor(@Inject(REQUEST) private readonly request: JobRequest) {}

  intercept(_host: ExecutionContext, next: CallHandler) {
    const { retry } = this.request.job;
    return next.handle().pipe(map((value) => `${value} in retry ${retry}`));
  }
}

@Injectable()
class AppPipe implements PipeTransform {
  transform(value: PlainContext) {
    return { ...value, piped: true };
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
class PlainJob implements JobHandler<PlainContext> {
  runJob({ fail, ...value }: PlainContext) {
    if (fail) throw new RangeError('requested');
    return JSON.stringify(value);
  }
}

const APP_ENHANCERS: Provider[] = [
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
    providers: [PlainJob, ...APP_ENHANCERS],
    options: globalEnhancers === undefined ? {} : { globalEnhancers },
  });
  try {
    await test(bildad);
  } finally {
    await bildad.close();
  }
}

it('app-wide enhancers do not apply to jobs by default', () =>
  withApp(undefined, async (bildad) => {
    const { run } = await runOnce(bildad, PlainJob, { blocked: true });
    expect(run.output).toBe('{"blocked":true}');
    await runOnce(bildad, PlainJob, { fail: true });
    expect(AppFilter.caught).toEqual([]);
  }));

it('globalEnhancers applies app-wide enhancers to jobs, REQUEST-scoped ones too', () =>
  withApp(true, async (bildad) => {
    const { run } = await runOnce(bildad, PlainJob, {});
    expect(run.output).toBe('{"piped":true} in retry 0');
    const blocked = await runOnce(bildad, PlainJob, { blocked: true });
    expect(blocked.event.errorName).toBe('JobForbiddenError');
    await runOnce(bildad, PlainJob, { fail: true });
    expect(AppFilter.caught).toMatchObject([{ code: 'JOB_FORBIDDEN' }, { message: 'requested' }]);
  }));

describe('a guard that cannot be instantiated fails the boot', () => {
  @BildadJob({ code: 'FACTORY_MADE' })
  @UseGuards(AppGuard)
  class MadeJob implements JobHandler<PlainContext> {
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

  it('a guard on a handler that a factory creates fails the boot', async () => {
    const factory = { provide: 'factory', useFactory: () => new MadeJob() };
    expect(await boot([factory])).toContain('@UseGuards(AppGuard) of MadeJob');
  });

  it('an app-wide TRANSIENT guard fails the boot', async () => {
    const guard = { provide: APP_GUARD, useClass: TransientGuard };
    expect(await boot([PlainJob, guard], true)).toContain(
      'of PlainJob must have the scope DEFAULT or REQUEST',
    );
  });
});

it('two engines in one app run the same interceptor around their own handlers', async () => {
  @Injectable()
  class CountingInterceptor implements NestInterceptor {
    static calls: string[] = [];

    intercept(host: ExecutionContext, next: CallHandler) {
      const { template } = BildadExecutionContext.create(host).getJob();
      CountingInterceptor.calls.push(`${template.code} of ${host.getClass().name}`);
      return next.handle();
    }
  }

  @BildadJob({ code: 'ONE', engine: 'default' })
  @UseInterceptors(CountingInterceptor)
  class OneJob implements JobHandler<object> {
    runJob() {}
  }

  @BildadJob({ code: 'OTHER', engine: 'other' })
  @UseInterceptors(CountingInterceptor)
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
    expect(CountingInterceptor.calls).toEqual(['ONE of OneJob', 'OTHER of OtherJob']);
  } finally {
    await bildad.close();
  }
});
