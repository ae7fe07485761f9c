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

// Guards, interceptors, pipes and filters apply to listeners as they apply to handlers.

const calls: string[] = [];
let open: TestApp | undefined;
beforeEach(() => void calls.splice(0));
afterEach(async () => {
  await open?.close();
  open = undefined;
});

const payloadOf = (host: ArgumentsHost) => host.getArgByIndex<JobEventMap['run.finished'][0]>(0);

@Injectable()
class CodeGuard implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    const { templateCode } = payloadOf(context);
    calls.push(
      `${context.getType()} ${context.getClass().name}.${context.getHandler().name} ${templateCode}`,
    );
    return templateCode !== 'REFUSED';
  }
}

@Injectable()
class LoggingInterceptor implements NestInterceptor {
  intercept(_context: ExecutionContext, next: CallHandler) {
    calls.push('before');
    return next.handle().pipe(tap(() => calls.push('after')));
  }
}

class Filter implements ExceptionFilter {
  catch(error: Error, host: ArgumentsHost): void {
    calls.push(`filter ${error.message} of ${payloadOf(host).templateCode}`);
  }
}

@UseGuards(CodeGuard)
@Injectable()
class Guarded {
  @UseInterceptors(LoggingInterceptor)
  @UseFilters(Filter)
  @OnJobEvent('run.succeeded', { code: 'SIMPLE' })
  onSucceeded(): void {
    calls.push('called');
    throw new Error('of the listener');
  }
}

it('guards, interceptors and filters apply to a listener, and its failure is reported', async () => {
  const { engine, next } = (open = await bootApp({
    providers: [SimpleJob, Guarded, CodeGuard, LoggingInterceptor],
  }));
  const failed = next('engine.error');
  await engine.enqueueAndRunJob(SimpleJob, {});
  expect(await failed).toMatchObject({
    doing: '@OnJobEvent of Guarded.onSucceeded of run.succeeded',
    error: new Error('of the listener'),
  });
  expect(calls).toEqual([
    'bildad:event Guarded.onSucceeded SIMPLE',
    'before',
    'called',
    'filter of the listener of SIMPLE',
  ]);
});

@Injectable()
class RefusingGuard implements CanActivate {
  canActivate(context: ExecutionContext): boolean {
    return context.getType<string>() !== 'bildad:event';
  }
}

@Injectable()
class Plain {
  @OnJobEvent('run.succeeded')
  onSucceeded(): void {
    calls.push('called');
  }
}

it.each([
  [true, 'JobForbiddenError'],
  [false, undefined],
])(
  'with globalEnhancers: %s, an app-wide guard refuses a listener call with %s',
  async (globalEnhancers, refusal) => {
    const { engine, next } = (open = await bootApp({
      providers: [SimpleJob, Plain, { provide: APP_GUARD, useClass: RefusingGuard }],
      options: { globalEnhancers },
    }));
    const failed = refusal ? next('engine.error') : undefined;
    await engine.enqueueAndRunJob(SimpleJob, {});
    const error = (await failed)?.error as Error | undefined;
    await open.close();
    open = undefined;
    expect(error?.name).toBe(refusal);
    expect(calls).toEqual(refusal ? [] : ['called']);
  },
);

@Injectable({ scope: Scope.REQUEST })
class RequestScoped {
  constructor(@Inject(REQUEST) private readonly request: JobEventRequest<'run.succeeded'>) {}

  @OnJobEvent('run.succeeded')
  onSucceeded(payload: JobEventMap['run.finished'][0]): void {
    const { event } = this.request;
    calls.push(`${event} ${this.request.payload === payload}`);
  }
}

it('REQUEST in a request-scoped listener is its event', async () => {
  const { engine } = (open = await bootApp({
    providers: [SimpleJob, RequestScoped],
  }));
  await engine.enqueueAndRunJob(SimpleJob, {});
  await open.close();
  open = undefined;
  expect(calls).toEqual(['run.succeeded true']);
});

@Injectable()
class MarkingPipe implements PipeTransform {
  transform(payload: object) {
    calls.push('pipe');
    return { ...payload, marked: true };
  }
}

@Injectable({ scope: Scope.REQUEST })
class PerEventGuard implements CanActivate {
  constructor(@Inject(REQUEST) private readonly request: JobEventRequest) {}

  canActivate(): boolean {
    calls.push(`guard of ${this.request.event}`);
    return true;
  }
}

class Listening {
  @UseInterceptors(LoggingInterceptor)
  @UsePipes(MarkingPipe)
  @OnJobEvent('run.succeeded')
  onSucceeded(payload: JobEventMap['run.finished'][0]): void {
    calls.push(`called ${'marked' in payload}`);
  }
}

@UseGuards(CodeGuard)
@Controller()
class Shared extends Listening {}

@UseGuards(CodeGuard)
@Controller({ scope: Scope.REQUEST })
class Scoped extends Listening {}

@UseGuards(PerEventGuard)
@Controller()
class ScopedByItsGuard extends Listening {}

@UseGuards(RefusingGuard)
@Controller()
class Refusing extends Listening {}

class ControllersModule {}
const bootControllers = (controller: new () => object) =>
  bootApp({
    providers: [SimpleJob],
    imports: [{ module: ControllersModule, controllers: [controller] }],
  });

it.each([
  [Shared, 'bildad:event Shared.onSucceeded SIMPLE'],
  [Scoped, 'bildad:event Scoped.onSucceeded SIMPLE'],
  [ScopedByItsGuard, 'guard of run.succeeded'],
])(
  'enhancers given as classes apply to a listener of a controller: %o',
  async (controller, guarded) => {
    const { engine } = (open = await bootControllers(controller));
    await engine.enqueueAndRunJob(SimpleJob, {});
    await open.close();
    open = undefined;
    expect(calls).toEqual([guarded, 'before', 'pipe', 'called true', 'after']);
  },
);

it('a guard class on a controller refuses its listener calls', async () => {
  const { engine, events } = (open = await bootControllers(Refusing));
  events.on('engine.error', ({ error }) => calls.push((error as Error).name));
  await engine.enqueueAndRunJob(SimpleJob, {});
  await open.close();
  open = undefined;
  expect(calls).toEqual(['JobForbiddenError']);
});
