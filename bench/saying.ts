import 'reflect-metadata';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Injectable, Logger, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import {
  BildadJob,
  BildadModule,
  JobEngineService,
  JobEvents,
  OnJobEvent,
  type JobExecution,
} from 'nestjs-bildad';
import { startPostgres } from 'nestjs-bildad/testing';
import { spread } from './statistics.js';

/**
 * What it costs that jobs say something: `npm run bench:saying`. Jobs are drained by processes of their own, in turns: that
 * say nothing; with a listener on `run.succeeded`; that report their progress twice and log a line as well.
 */

const JOBS = 30_000;
const ROUNDS = 5;
const WAYS = ['silent', 'listener', 'lines', 'all'] as const;
type Way = (typeof WAYS)[number];

interface Drained {
  jobsPerSecond: number;
  cpuUsPerJob: number;
}

const [url, way] = process.argv.slice(2);

@BildadJob({ code: 'NOOP' })
class NoopJob {
  async runJob(_context: object, job: JobExecution): Promise<void> {
    if (way === 'lines' || way === 'all') job.log('a line of it');
    if (way !== 'all') return;
    job.progress(0.5, 'half way');
    job.progress(1, 'all of it');
  }
}

@Injectable()
class Counting {
  ends = 0;

  @OnJobEvent('run.succeeded')
  over(): void {
    this.ends++;
  }
}

if (url) process.send!(await drain(url, way as Way));
else await compare();

async function drain(databaseUrl: string, way: Way): Promise<Drained> {
  @Module({
    imports: [
      TypeOrmModule.forRoot({
        type: 'postgres',
        url: databaseUrl,
        autoLoadEntities: true,
      }),
      BildadModule.forRoot({ concurrency: 100 }),
    ],
    providers: [NoopJob, ...(way === 'silent' ? [] : [Counting])],
  })
  class App {}
  // Lines are not printed: that would be most of it.
  const app = await NestFactory.createApplicationContext(App, {
    logger: ['error'],
  });
  if (Logger.isLevelEnabled('log')) throw new Error('lines would be printed');
  let left = JOBS;
  const over = new Promise<void>((resolve) => {
    app.get(JobEvents).on('run.finished', () => {
      if (--left === 0) resolve();
    });
  });
  const contexts = Array.from({ length: JOBS }, () => ({}));
  await app.get(JobEngineService).enqueueJobs(NoopJob, contexts);
  const cpu = process.cpuUsage();
  const began = performance.now();
  await over;
  const { user, system } = process.cpuUsage(cpu);
  const jobsPerSecond = (JOBS / (performance.now() - began)) * 1_000;
  await app.close();
  return { jobsPerSecond, cpuUsPerJob: (user + system) / JOBS };
}

async function compare(): Promise<void> {
  const server = await startPostgres({
    settings: { synchronous_commit: 'off' },
  });
  const found: Record<Way, Drained[]> = {
    silent: [],
    listener: [],
    lines: [],
    all: [],
  };
  for (let round = 0; round < ROUNDS; round++)
    for (const one of round % 2 ? WAYS.toReversed() : WAYS) {
      const child = fork(fileURLToPath(import.meta.url), [server.url, one]);
      const [drained] = (await once(child, 'message')) as [Drained];
      found[one].push(drained);
      if (child.exitCode === null) await once(child, 'exit');
    }
  await server.stop();
  const told = (values: number[]) => {
    const { min, median, max } = spread(values)!;
    return [median, min, max].map((value) => Number(value.toFixed(1)));
  };
  for (const one of WAYS)
    console.log(
      one,
      'jobs/s',
      told(found[one].map(({ jobsPerSecond }) => jobsPerSecond)),
      'us of CPU a job',
      told(found[one].map(({ cpuUsPerJob }) => cpuUsPerJob)),
    );
}
