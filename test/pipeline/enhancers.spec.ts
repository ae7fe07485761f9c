import {
  Catch,
  ForbiddenException,
  Injectable,
  SetMetadata,
  UseFilters,
  UseGuards,
  UseInterceptors,
  UsePipes,
  ValidationPipe,
  type ArgumentMetadata,
  type ArgumentsHost,
  type CallHandler,
  type CanActivate,
  type ExceptionFilter,
  type ExecutionContext,
  type NestInterceptor,
  type PipeTransform,
} from '@nestjs/common';
import { Reflector } from '@nestjs/core';
import { IsInt } from 'class-validator';
import {
  BildadExecutionContext,
  BildadJob,
  JobForbiddenError,
  NonRetryableError,
  SnoozeError,
  type BildadContextType,
  type JobExecution,
  type JobHandler,
} from 'nestjs-bildad';
import { concatMap, map, of, throwError, timeout, NEVER, EMPTY } from 'rxjs';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { runOnce } from '../support/run-once.js';

// Guards, interceptors, pipes and exception filters run around handlers as around Nest routes.

interface Seen {
  type: string;
  class: unknown;
  method: unknown;
  role: unknown;
  context: unknown;
  job: JobExecution;
}

let seen: Seen[];
let steps: string[];
let allows: (context: { n: number }) => unknown;
let intercepts: (next: CallHandler) => ReturnType<NestInterceptor['intercept']>;
let does: (context: { n: number }, job: JobExecution) => unknown;
let filters: (error: unknown) => unknown;

beforeEach(() => {
  seen = [];
  steps = [];
  allows = () => true;
  intercepts = (next) => next.handle();
  does = ({ n }) => n;
  filters = () => undefined;
});

@Injectable()
class Roles {
  of(reflector: Reflector, context: ExecutionContext) {
    return reflector.getAllAndMerge('role', [context.getHandler(), context.getClass()]);
  }
}

@Injectable()
class Guard implements CanActivate {
  constructor(
    private readonly reflector: Reflector,
    private readonly roles: Roles,
  ) {}

  canActivate(host: ExecutionContext) {
    steps.push('guard');
    const job = BildadExecutionContext.create(host);
    seen.push({
      type: host.getType<BildadContextType>(),
      class: host.getClass(),
      method: host.getHandler(),
      role: this.roles.of(this.reflector, host),
      context: job.getContext(),
      job: job.getJob(),
    });
    return allows(job.getContext()) as boolean;
  }
}

@Injectable()
class Interceptor implements NestInterceptor {
  intercept(_host: ExecutionContext, next: CallHandler) {
    steps.push('interceptor');
    return intercepts(next);
  }
}

@Injectable()
class DoublingPipe implements PipeTransform {
  static metadata: ArgumentMetadata[] = [];

  transform(value: { n: number }, metadata: ArgumentMetadata) {
    steps.push('pipe');
    DoublingPipe.metadata.push(metadata);
    return { ...value, n: value.n * 2 };
  }
}

@Catch()
class Filter implements ExceptionFilter {
  catch(error: unknown, host: ArgumentsHost) {
    steps.push('filter');
    BildadExecutionContext.create(host).getJob();
    return filters(error);
  }
}

class NumberContext {
  @IsInt() n!: number;
}

@BildadJob({ code: 'ENHANCED', context: NumberContext, maxRetries: 1 })
@UseGuards(Guard)
@SetMetadata('role', ['class'])
class EnhancedJob implements JobHandler<NumberContext> {
  @UseInterceptors(Interceptor)
  @UsePipes(DoublingPipe)
  @UseFilters(Filter)
  @SetMetadata('role', ['method'])
  runJob(context: NumberContext, job: JobExecution): unknown {
    steps.push('job');
    return does(context, job);
  }
}

@Catch(RangeError)
class RangeFilter implements ExceptionFilter {
  catch() {
    steps.push('range');
  }
}

@Catch(ForbiddenException)
class ForbiddenFilter implements ExceptionFilter {
  catch() {
    steps.push('forbidden');
  }
}

@BildadJob({ code: 'FILTERED', maxRetries: 0 })
@UseGuards(Guard)
@UseFilters(RangeFilter, ForbiddenFilter)
class FilteredJob implements JobHandler<{ n: number }> {
  runJob(context: { n: number }, job: JobExecution): unknown {
    return does(context, job);
  }
}

@BildadJob({ code: 'VALIDATED', context: NumberContext, maxRetries: 0 })
@UsePipes(new ValidationPipe({ transform: true }))
class ValidatedJob implements JobHandler<NumberContext> {
  runJob(context: NumberContext): unknown {
    return context instanceof NumberContext && context.n;
  }
}

@BildadJob({ code: 'IN_TRANSACTION', maxRetries: 0, transactional: true })
@UseInterceptors(Interceptor)
class TransactionalJob implements JobHandler<{ n: number }> {
  async runJob({ n }: { n: number }, { manager }: JobExecution) {
    await manager.query('INSERT INTO numbers VALUES ($1)', [n]);
    return 'from the job';
  }
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [Roles, EnhancedJob, FilteredJob, ValidatedJob, TransactionalJob],
  });
  await bildad.sql('CREATE TABLE numbers (n int)');
});
afterAll(() => bildad.close());

const runEnhancedJob = (n = 1) => runOnce(bildad, EnhancedJob, { n });

it('the enhancers run in the order of a route', async () => {
  const { run } = await runEnhancedJob(21);
  expect(run).toMatchObject({ result: 'SUCCEEDED', output: 42 });
  expect(steps).toEqual(['guard', 'interceptor', 'pipe', 'job']);
});

describe('a guard', () => {
  it('a guard sees the job, its class, its method and their metadata', async () => {
    const { run } = await runEnhancedJob(7);
    expect(seen).toMatchObject([
      {
        type: 'bildad',
        class: EnhancedJob,
        method: Object.getOwnPropertyDescriptor(EnhancedJob.prototype, 'runJob')!.value as unknown,
        role: ['method', 'class'],
        context: { n: 7 },
      },
    ]);
    expect(seen[0]!.job.jobRunIdentifier).toBe(run.jobRunIdentifier);
  });

  it('a guard that rejects fails the run, and the entry is retried', async () => {
    allows = () => false;
    let filtered: unknown;
    filters = (error) => void (filtered = error);
    const { run, event } = await runEnhancedJob();
    expect(event).toMatchObject({
      outcome: 'failed',
      entry: 'reopened',
      errorName: 'JobForbiddenError',
    });
    expect(run.reason).toContain('Forbidden resource');
    expect(steps).toEqual(['guard', 'filter']);
    expect(filtered).toBeInstanceOf(JobForbiddenError);
    expect((filtered as Error).cause).toBeInstanceOf(ForbiddenException);
  });

  it.each<[string, () => unknown]>([
    ['undefined', () => undefined],
    ['a promise of false', () => Promise.resolve(false)],
    ['an observable of false', () => of(true, false)],
  ])('a guard that returns %s rejects the run', async (_name, answer) => {
    allows = answer;
    const { event } = await runEnhancedJob();
    expect(event.errorName).toBe('JobForbiddenError');
  });

  it('a guard can fail the job without retry or snooze it by throwing', async () => {
    allows = () => {
      throw new NonRetryableError('the tenant is gone');
    };
    const never = await runEnhancedJob();
    expect(never.event).toMatchObject({
      outcome: 'failedForGood',
      entry: 'removed',
    });
    allows = () => {
      throw new SnoozeError('1h', 'suspended');
    };
    const later = await runEnhancedJob();
    expect(later.event).toMatchObject({ outcome: 'snoozed' });
    expect(later.run.reason).toBe('Snoozed: suspended');
  });
});

describe('an interceptor', () => {
  it('an interceptor maps the result, and its last value counts', async () => {
    intercepts = (next) =>
      next.handle().pipe(
        map((value: number) => `was ${value}`),
        concatMap((text) => of('first', text)),
      );
    const { run } = await runEnhancedJob(1);
    expect(run.output).toBe('was 2');
  });

  it('an interceptor can skip the handler, and an empty observable fails the run', async () => {
    intercepts = () => of('cached');
    expect((await runEnhancedJob()).run.output).toBe('cached');
    expect(steps).not.toContain('job');
    intercepts = () => EMPTY;
    expect((await runEnhancedJob()).event).toMatchObject({
      outcome: 'failed',
      errorName: 'EmptyError',
    });
  });

  it('an interceptor can end the run with a timeout or an error', async () => {
    does = () => NEVER;
    intercepts = (next) => next.handle().pipe(timeout(5));
    expect((await runEnhancedJob()).event.errorName).toBe('TimeoutError');
    intercepts = () => throwError(() => new RangeError('no'));
    expect((await runEnhancedJob()).event.errorName).toBe('RangeError');
    intercepts = () => {
      throw new TypeError('at once');
    };
    expect((await runEnhancedJob()).event.errorName).toBe('TypeError');
  });

  it('an interceptor runs inside the transaction of a transactional job', async () => {
    const rows = () => bildad.sql('SELECT n FROM numbers');
    intercepts = (next) =>
      next.handle().pipe(
        map(() => {
          throw new RangeError('after the job');
        }),
      );
    const failed = await runOnce(bildad, TransactionalJob, { n: 1 });
    expect(failed.event.outcome).toBe('failed');
    expect(await rows()).toEqual([]);
    intercepts = (next) => next.handle();
    const { run } = await runOnce(bildad, TransactionalJob, { n: 2 });
    expect(run).toMatchObject({
      result: 'SUCCEEDED',
      output: 'from the job',
    });
    expect(await rows()).toEqual([{ n: 2 }]);
  });
});

describe('a pipe', () => {
  it('a pipe transforms the context and not the job', async () => {
    DoublingPipe.metadata = [];
    let job: JobExecution | undefined;
    does = ({ n }, given) => {
      job = given;
      return n;
    };
    const { run } = await runEnhancedJob(4);
    expect(run.output).toBe(8);
    expect(job!.jobRunIdentifier).toBe(run.jobRunIdentifier);
    expect(DoublingPipe.metadata).toMatchObject([{ type: 'body', metatype: NumberContext }]);
  });

  it('a pipe receives the context class that only @BildadJob names', async () => {
    const { run } = await runOnce(bildad, ValidatedJob, { n: 3 });
    expect(run).toMatchObject({ result: 'SUCCEEDED', output: 3 });
  });
});

describe('an exception filter', () => {
  it('a filter that handles the error does not make the run succeed', async () => {
    does = () => {
      throw new RangeError('too far');
    };
    for (const swallow of [() => 'fine', () => Promise.resolve('fine')]) {
      filters = swallow;
      const { run, event } = await runEnhancedJob();
      expect(event).toMatchObject({
        outcome: 'failed',
        errorName: 'RangeError',
      });
      expect(run.reason).toContain('too far');
    }
  });

  it('a filter can throw another error, and that error decides', async () => {
    does = () => {
      throw new RangeError('429');
    };
    filters = () => {
      throw new SnoozeError('1h', 'too many requests');
    };
    expect((await runEnhancedJob()).event.outcome).toBe('snoozed');
    filters = () => Promise.reject(new NonRetryableError('gone'));
    expect((await runEnhancedJob()).event.outcome).toBe('failedForGood');
  });

  it('a filter is not called when a handler snoozes or cancels its job', async () => {
    does = (_context, job) => job.snooze('1h');
    expect((await runEnhancedJob()).event.outcome).toBe('snoozed');
    does = (_context, job) => job.cancel('withdrawn');
    expect((await runEnhancedJob()).event.outcome).toBe('cancelled');
    expect(steps).not.toContain('filter');
  });

  it('a filter is called for the error classes that it catches', async () => {
    const filtered = (thrown: unknown) => {
      does = () => {
        throw thrown;
      };
      return runOnce(bildad, FilteredJob, { n: 1 });
    };
    await filtered(new RangeError());
    await filtered(new TypeError());
    await filtered(undefined);
    allows = () => false;
    await filtered(null);
    expect(steps.filter((step) => step !== 'guard')).toEqual(['range', 'forbidden']);
  });
});

it('BildadExecutionContext rejects the context of a route', () => {
  const host = { getType: () => 'http' } as ArgumentsHost;
  expect(() => BildadExecutionContext.create(host)).toThrow(
    "context must be one whose getType() is 'bildad', got 'http' (BildadExecutionContext.create)",
  );
});
