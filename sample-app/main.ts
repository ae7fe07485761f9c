import 'reflect-metadata';
import { once } from 'node:events';
import { NestFactory } from '@nestjs/core';
import type { INestApplication } from '@nestjs/common';
import { startPostgres } from 'nestjs-bildad/testing';
import { AppModule, HOST_DATABASE_URL } from './app.module.js';
import { readOptions, USAGE, UsageError, type CliOptions } from './cli.js';
import { FiguresService, type Figures } from './figures.js';
import { MainJob } from './main-job.js';
import { Progress } from './progress.js';
import { invitation, serve } from './serve.js';
import { stopSignal } from './stop-signal.js';
import { StderrLogger } from './stderr-logger.js';
import { resultTables } from './table.js';

const stop = stopSignal();
try {
  const options = await readOptions(process.argv.slice(2), process.env);
  if (options.help) console.log(USAGE);
  else await start(options);
} catch (error) {
  // What a stop interrupts may fail on its way out.
  if (!stop.aborted) fail(error);
}

/** Everything that is started is stopped, in the opposite order, whatever happens in between. */
async function start(options: CliOptions): Promise<void> {
  const postgres = options.databaseUrl ? undefined : await startPostgres();
  try {
    const figures = await withApp(options.databaseUrl ?? postgres!.url, (app) =>
      work(app, options),
    );
    if (figures && options.once) console.log(JSON.stringify(figures));
  } finally {
    await postgres?.stop();
  }
}

async function withApp<T>(
  databaseUrl: string,
  use: (app: INestApplication) => Promise<T>,
): Promise<T | undefined> {
  if (stop.aborted) return undefined;
  process.env[HOST_DATABASE_URL] = databaseUrl;
  const app = await NestFactory.create(AppModule.on(databaseUrl), {
    logger: new StderrLogger(),
    abortOnError: false,
    forceCloseConnections: true,
  });
  try {
    await app.init();
    return await Promise.race([use(app), stopped()]);
  } finally {
    await app.close();
  }
}

async function work(app: INestApplication, options: CliOptions): Promise<Figures> {
  console.log(`Indexing ${options.folder}`);
  const progress = new Progress();
  stop.addEventListener('abort', () => progress.stop());
  try {
    const result = await app.get(MainJob).run(
      options.folder,
      (jobs) => progress.start(jobs),
      (jobsOver) => progress.update(jobsOver),
    );
    progress.stop();
    const service = app.get(FiguresService);
    // The report is enqueued when everything else is over: nothing to compare it with.
    const priorities = await service.priorities(result.jobs.slice(0, -1));
    const figures = await service.figures(result, priorities);
    console.log(resultTables(result, figures, priorities, await service.killed(result.jobs)));
    if (!options.once) {
      console.log(invitation(await serve(app, options.port)));
      await stopped();
    }
    return figures;
  } finally {
    progress.stop();
  }
}

async function stopped(): Promise<undefined> {
  if (!stop.aborted) await once(stop, 'abort');
  return undefined;
}

function fail(error: unknown): void {
  const usage = error instanceof UsageError;
  const { message, code } = error as NodeJS.ErrnoException;
  console.error(`sample: ${message || code || String(error)}`);
  if (usage) console.error('Try --help.');
  process.exitCode = usage ? 2 : 1;
}
