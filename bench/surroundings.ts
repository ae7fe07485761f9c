import 'reflect-metadata';
import { AsyncLocalStorage } from 'node:async_hooks';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import {
  Injectable,
  Module,
  Scope,
  UseGuards,
  UseInterceptors,
  type CallHandler,
  type CanActivate,
  type ExecutionContext,
  type NestInterceptor,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import {
  BildadJob,
  BildadModule,
  JobEngineService,
  JobEvents,
  type BildadModuleOptions,
} from 'nestjs-bildad';
import { carryCls } from 'nestjs-bildad/cls';
import { startPostgres } from 'nestjs-bildad/testing';
import { ClsServiceManager } from 'nestjs-cls';
import { spread } from './statistics.js';

/**
 * What guards, interceptors, the scope REQUEST and carriers cost: `npm run bench:surroundings`. No-op jobs, enqueued and
 * then drained by processes of their own with one of them each, in turns.
 */

const JOBS = 20_000;
const ROUNDS = 3;

@Injectable()
class Guard implements CanActivate {
  canActivate(): boolean {
    return true;
  }
}

@Injectable()
class Interceptor implements NestInterceptor {
  intercept(_host: ExecutionContext, next: CallHandler) {
    return next.handle();
  }
}

@BildadJob({ code: 'PLAIN' })
class PlainJob {
  async runJob(): Promise<void> {}
}

@BildadJob({ code: 'GUARDED' })
@UseGuards(Guard)
class GuardedJob extends PlainJob {}

@BildadJob({ code: 'SURROUNDED' })
@UseGuards(Guard)
@UseInterceptors(Interceptor)
class SurroundedJob extends PlainJob {}

@BildadJob({ code: 'REQUEST' })
@Injectable({ scope: Scope.REQUEST })
class RequestJob extends PlainJob {}

const als = new AsyncLocalStorage<string>();
const cls = ClsServiceManager.getClsService();

interface Case {
  job: typeof PlainJob;
  options?: BildadModuleOptions;
  inside?: <T>(enqueue: () => T) => T;
}

const CASES: Record<string, Case> = {
  nothing: { job: PlainJob },
  'a guard': { job: GuardedJob },
  'a guard and an interceptor': { job: SurroundedJob },
  'scope REQUEST': { job: RequestJob },
  'a carrier': {
    job: PlainJob,
    options: {
      carry: {
        tenant: {
          capture: () => als.getStore(),
          restore: (tenant: string | undefined, next) =>
            tenant === undefined ? als.exit(next) : als.run(tenant, next),
        },
      },
    },
    inside: (enqueue) => als.run('acme', enqueue),
  },
  carryCls: {
    job: PlainJob,
    options: { carry: { cls: carryCls({ keys: ['tenantId', 'userId'] }) } },
    inside: (enqueue) =>
      cls.run(() => {
        cls.set('tenantId', 'acme');
        cls.set('userId', 4711);
        return enqueue();
      }),
  },
};

interface Measured {
  perSecond: number;
  /** Of this process. */
  cpuUsPerJob: number;
}

interface Measures {
  enqueue: Measured;
  drain: Measured;
}

const [url, name] = process.argv.slice(2);
if (url) process.send!(await measure(url, CASES[name!]!));
else await compare();

async function measure(
  databaseUrl: string,
  { job, options = {}, inside = (enqueue) => enqueue() }: Case,
): Promise<Measures> {
  @Module({
    imports: [
      TypeOrmModule.forRoot({
        type: 'postgres',
        url: databaseUrl,
        autoLoadEntities: true,
      }),
      BildadModule.forRoot({ concurrency: 100, ...options }),
    ],
    providers: [PlainJob, GuardedJob, SurroundedJob, RequestJob],
  })
  class App {}
  const app = await NestFactory.createApplicationContext(App, {
    logger: ['error'],
  });
  let left = JOBS;
  const over = new Promise<void>((resolve) => {
    app.get(JobEvents).on('run.finished', () => {
      if (--left === 0) resolve();
    });
  });
  const engine = app.get(JobEngineService);
  const contexts = Array.from({ length: JOBS }, (_, n) => ({ n }));
  const sent = clock();
  // One transaction: none of them starts before.
  await inside(() => engine.enqueueJobs(job, contexts));
  const enqueue = sent();
  const begun = clock();
  await over;
  const drain = begun();
  await app.close();
  return { enqueue, drain };
}

function clock(): () => Measured {
  const cpu = process.cpuUsage();
  const began = performance.now();
  return () => {
    const { user, system } = process.cpuUsage(cpu);
    return {
      perSecond: (JOBS / (performance.now() - began)) * 1_000,
      cpuUsPerJob: (user + system) / JOBS,
    };
  };
}

async function compare(): Promise<void> {
  const server = await startPostgres({
    settings: { synchronous_commit: 'off' },
  });
  const measured = new Map<string, Measures[]>(
    Object.keys(CASES).map((name) => [name, []]),
  );
  for (let round = 0; round < ROUNDS; round++)
    for (const name of round % 2
      ? Object.keys(CASES)
      : Object.keys(CASES).toReversed()) {
      const child = fork(fileURLToPath(import.meta.url), [server.url, name]);
      const [figures] = (await once(child, 'message')) as [Measures];
      measured.get(name)!.push(figures);
      if (child.exitCode === null) await once(child, 'exit');
    }
  await server.stop();
  const told = (values: number[]) => {
    const { min, median, max } = spread(values)!;
    return [median, min, max].map((value) => Number(value.toFixed(1)));
  };
  for (const [name, figures] of measured)
    for (const what of ['enqueue', 'drain'] as const)
      console.log(
        name.padEnd(28),
        what.padEnd(8),
        'jobs/s',
        told(figures.map((figure) => figure[what].perSecond)),
        'us of CPU a job',
        told(figures.map((figure) => figure[what].cpuUsPerJob)),
      );
}
