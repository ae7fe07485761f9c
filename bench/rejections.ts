import 'reflect-metadata';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import {
  BildadJob,
  BildadModule,
  JobEngineService,
  JobEvents,
} from 'nestjs-bildad';
import { startPostgres } from 'nestjs-bildad/testing';
import { spread } from './statistics.js';

/**
 * What `attributeRejections` costs: `npm run bench:rejections`. No-op jobs, drained by processes of their own with it and
 * without, in turns: once a process has used an AsyncLocalStorage, its promises stay dearer.
 */

const JOBS = 50_000;
const ROUNDS = 7;

interface Drained {
  jobsPerSecond: number;
  cpuUsPerJob: number;
}

@BildadJob({ code: 'NOOP' })
class NoopJob {
  async runJob(): Promise<void> {}
}

const [url, attributes] = process.argv.slice(2);
if (url) process.send!(await drain(url, attributes === 'true'));
else await compare();

async function drain(
  databaseUrl: string,
  attributeRejections: boolean,
): Promise<Drained> {
  @Module({
    imports: [
      TypeOrmModule.forRoot({
        type: 'postgres',
        url: databaseUrl,
        autoLoadEntities: true,
      }),
      BildadModule.forRoot({ concurrency: 100, attributeRejections }),
    ],
    providers: [NoopJob],
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
  const found: Record<string, Drained[]> = { true: [], false: [] };
  for (let round = 0; round < ROUNDS; round++)
    for (const one of round % 2 ? ['true', 'false'] : ['false', 'true']) {
      const child = fork(fileURLToPath(import.meta.url), [server.url, one]);
      const [drained] = (await once(child, 'message')) as [Drained];
      found[one]!.push(drained);
      if (child.exitCode === null) await once(child, 'exit');
    }
  await server.stop();
  const told = (values: number[]) => {
    const { min, median, max } = spread(values)!;
    return [median, min, max].map((value) => Number(value.toFixed(1)));
  };
  for (const [one, drained] of Object.entries(found))
    console.log(
      `attributeRejections: ${one}`,
      'jobs/s',
      told(drained.map(({ jobsPerSecond }) => jobsPerSecond)),
      'us of CPU a job',
      told(drained.map(({ cpuUsPerJob }) => cpuUsPerJob)),
    );
}
