import {
  Controller,
  Inject,
  Injectable,
  Scope,
  UseFilters,
  UseGuards,
  UseInterceptors,
  UsePipes,
  type ArgumentsHost,
  type CallHandler,
  type CanActivate,
  type ExceptionFilter,
  type ExecutionContext,
  type NestInterceptor,
  type PipeTransform,
} from '@nestjs/common';
import { APP_GUARD, REQUEST } from '@nestjs/core';
import { tap } from 'rxjs';
import { OnJobEvent, type JobEventMap, type JobEventRequest } from 'nestjs-bildad';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';

// What stands around listeners is what stands around handlers.

const told: string[] = [];
let open: TestApp | undefined;
beforeEach(() => void told.splice(0));
afterEach(async () => {
  await open?.close();
  open = undefined;
});

const payloadOf = (host: ArgumentsHost) => host.getArgByIndex<JobEventMap['run.finished'][0]>(0);

@Injectable()
class Only implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    const { templateCode } = payloadOf(context);
    told.push(
      `${context.getType()} ${context.getClass().name}.${context.getHandler().name} ${templateCode}`,
    );
    return templateCode !== 'REFUSED';
  }
}

@Injectable()
class Around implements NestInterceptor {
  intercept(_context: ExecutionContext, next: CallHandler) {
    told.push('before');
    return next.handle().pipe(tap(() => told.push('after')));
  }
}

class Filter implements ExceptionFilter {
  catch(error: Error, host: ArgumentsHost): void {
    told.push(`filter ${error.message} of ${payloadOf(host).templateCode}`);
  }
}

@UseGuards(Only)
@Injectable()
class Guarded {
  @UseInterceptors(Around)
  @UseFilters(Filter)
  @OnJobEvent('run.succeeded', { code: 'SIMPLE' })
  over(): void {
    told.push('called');
    throw new Error('of the listener');
  }
}

it('guards, interceptors and filters stand around a listener, and its failure is told', async () => {
  const { engine, next } = (open = await bootApp({
    providers: [SimpleJob, Guarded, Only, Around],
  }));
  const failed = next('engine.error');
  await engine.enqueueAndRunJob(SimpleJob, {});
  expect(await failed).toMatchObject({
    doing: '@OnJobEvent of Guarded.over of run.succeeded',
    error: new Error('of the listener'),
  });
  expect(told).toEqual([
    'bildad:event Guarded.over SIMPLE',
    'before',
    'called',
    'filter of the listener of SIMPLE',
  ]);
});

@Injectable()
class Never implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    return context.getType<string>() !== 'bildad:event';
  }
}

@Injectable()
class Plain {
  @OnJobEvent('run.succeeded')
  over(): void {
    told.push('called');
  }
}

it.each([
  [true, 'JobForbiddenError'],
  [false, undefined],
])(
  'with globalEnhancers: %s a guard of the whole app refuses with %s',
  async (globalEnhancers, refusal) => {
    const { engine, next } = (open = await bootApp({
      providers: [SimpleJob, Plain, { provide: APP_GUARD, useClass: Never }],
      options: { globalEnhancers },
    }));
    const failed = refusal ? next('engine.error') : undefined;
    await engine.enqueueAndRunJob(SimpleJob, {});
    const error = (await failed)?.error as Error | undefined;
    await open.close();
    open = undefined;
    expect(error?.name).toBe(refusal);
    expect(told).toEqual(refusal ? [] : ['called']);
  },
);

@Injectable({ scope: Scope.REQUEST })
class PerEvent {
  constructor(@Inject(REQUEST) private readonly request: JobEventRequest<'run.succeeded'>) {}

  @OnJobEvent('run.succeeded')
  over(payload: JobEventMap['run.finished'][0]): void {
    const { event } = this.request;
    told.push(`${event} ${this.request.payload === payload}`);
  }
}

it('REQUEST in a listener is its event', async () => {
  const { engine } = (open = await bootApp({
    providers: [SimpleJob, PerEvent],
  }));
  await engine.enqueueAndRunJob(SimpleJob, {});
  await open.close();
  open = undefined;
  expect(told).toEqual(['run.succeeded true']);
});

@Injectable()
class Marking implements PipeTransform {
  transform(payload: object) {
    told.push('pipe');
    return { ...payload, marked: true };
  }
}

@Injectable({ scope: Scope.REQUEST })
class PerEventGuard implements CanActivate {
  constructor(@Inject(REQUEST) private readonly request: JobEventRequest) {}

  canActivate(): boolean {
    told.push(`guard of ${this.request.event}`);
    return true;
  }
}

class Listening {
  @UseInterceptors(Around)
  @UsePipes(Marking)
  @OnJobEvent('run.succeeded')
  over(payload: JobEventMap['run.finished'][0]): void {
    told.push(`called ${'marked' in payload}`);
  }
}

@UseGuards(Only)
@Controller()
class Shared extends Listening {}

@UseGuards(Only)
@Controller({ scope: Scope.REQUEST })
class Scoped extends Listening {}

@UseGuards(PerEventGuard)
@Controller()
class ScopedByItsGuard extends Listening {}

@UseGuards(Never)
@Controller()
class Refusing extends Listening {}

class ControllersModule {}
const bootControllers = (controller: new () => object) =>
  bootApp({
    providers: [SimpleJob],
    imports: [{ module: ControllersModule, controllers: [controller] }],
  });

it.each([
  [Shared, 'bildad:event Shared.over SIMPLE'],
  [Scoped, 'bildad:event Scoped.over SIMPLE'],
  [ScopedByItsGuard, 'guard of run.succeeded'],
])(
  'what is given as a class stands around a listener of a controller: %o',
  async (controller, guarded) => {
    const { engine } = (open = await bootControllers(controller));
    await engine.enqueueAndRunJob(SimpleJob, {});
    await open.close();
    open = undefined;
    expect(told).toEqual([guarded, 'before', 'pipe', 'called true', 'after']);
  },
);

it('a guard of a controller, given as a class, refuses', async () => {
  const { engine, events } = (open = await bootControllers(Refusing));
  events.on('engine.error', ({ error }) => told.push((error as Error).name));
  await engine.enqueueAndRunJob(SimpleJob, {});
  await open.close();
  open = undefined;
  expect(told).toEqual(['JobForbiddenError']);
});
