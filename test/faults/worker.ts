import 'reflect-metadata';
import { setTimeout as wait } from 'node:timers/promises';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { BildadModule, JobEvents } from 'nestjs-bildad';
import { handlers } from './handlers.js';
import { Ledger, recordStalls } from './ledger.js';
import { plantInProcess } from './mutants.js';
import { setting, SHUTDOWN } from './settings.js';

// A node of the lab: a Nest app as a user writes it, which says in its ledger what it does.

const ledger = new Ledger(setting('LAB_LEDGERS'), setting('LAB_NAME'));
for (const event of ['unhandledRejection', 'uncaughtException'] as const)
  process.on(event, (error: unknown) => {
    ledger.write({
      what: 'fatal',
      error: `${event}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
    });
    process.exit(70);
  });
let over = false;
// The lab is gone.
process.on('disconnect', () => {
  if (!over) process.exit();
});
plantInProcess(process.env['LAB_MUTANT'], Number(setting('LAB_SKEW_MS')));

@Module({
  imports: [
    TypeOrmModule.forRoot({
      type: 'postgres',
      url: setting('DATABASE_URL'),
      autoLoadEntities: true,
      retryAttempts: 20,
      retryDelay: 250,
      connectTimeoutMS: 5_000,
    }),
    BildadModule.forRoot({
      role: 'worker',
      tickInterval: '1s',
      concurrency: Number(setting('LAB_CONCURRENCY')),
      shutdown: SHUTDOWN,
      queryTimeout: '2s',
    }),
  ],
  providers: handlers(ledger, process.env['LAB_MISSING'] ?? null),
})
class WorkerModule {}

const app = await NestFactory.createApplicationContext(WorkerModule, {
  logger: false,
  abortOnError: false,
}).catch((error: unknown) => {
  // As an app whose database is away at its start: the supervisor starts it again.
  console.error(String(error));
  process.exit(1);
});

recordStalls(ledger);
const events = app.get(JobEvents);
events.on('database.lost', ({ error }) =>
  ledger.write({ what: 'databaseLost', error: String(error).slice(0, 200) }),
);
events.on('run.finished', ({ jobRunIdentifier, jobRunId, outcome }) =>
  ledger.write({
    what: 'landed',
    id: jobRunIdentifier,
    run: jobRunId,
    outcome,
  }),
);
events.on('run.finishRejected', ({ jobRunIdentifier, jobRunId, outcome }) =>
  ledger.write({ what: 'lost', id: jobRunIdentifier, run: jobRunId, outcome }),
);
events.on('engine.error', ({ doing, error }) => {
  const { code } = error as { code?: unknown };
  ledger.write({
    what: 'engineError',
    doing: doing.replace(/\d+/g, 'n'),
    error: error instanceof Error ? error.message.slice(0, 200) : 'unknown',
    ...(typeof code === 'string' && { code }),
  });
});

process.on('SIGTERM', () => {
  ledger.write({ what: 'closing' });
  void app.close().then(async () => {
    // A socket that was ended takes a moment to go. What is left then keeps the process from ending.
    for (let look = 0; look < 50 && left().length > 0; look++) await wait(20);
    ledger.write({ what: 'closed', left: left() });
    over = true;
    process.disconnect();
  });
});
const left = () =>
  process.getActiveResourcesInfo().filter((name) => name !== 'PipeWrap' && name !== 'Timeout');
ledger.write({ what: 'ready', pid: process.pid });
process.send!('ready');
