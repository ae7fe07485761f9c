import 'reflect-metadata';
import { setTimeout as pause } from 'node:timers/promises';
import { Inject, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { InjectDataSource, TypeOrmModule } from '@nestjs/typeorm';
import { BildadJob, BildadModule, JobEngineService, type JobExecution } from 'nestjs-bildad';
import type { DataSource } from 'typeorm';

/**
 * A node of the lab of transactions. With `DIE_AT` it kills itself (SIGKILL) around that statement of its handlers'
 * transactions: before it is sent, as it is under way, or when it was answered.
 */
const [dieAt = 0, dieWhen = ''] = (process.env['DIE_AT'] ?? '').split(' ');
const die = () => process.kill(process.pid, 'SIGKILL');

let statements = 0;
function passing(when: 'before' | 'after', sql: string): void {
  // What the pools send by themselves is not a handler's.
  if (/pg_catalog|information_schema/.test(sql)) return;
  if (when === 'before') statements++;
  if (statements !== Number(dieAt)) return;
  if (when === dieWhen) die();
  else if (when === 'before' && dieWhen === 'sent') setImmediate(die);
}

export interface Step {
  name: string;
  /** Milliseconds between its statements. */
  pauseMs: number;
  /** Fails so often before it succeeds. */
  failures: number;
  /** Jobs it leaves, which leave none. */
  children: string[];
}

@BildadJob({
  code: 'STEP',
  transactional: true,
  maxRetries: 1_000,
  backoff: 'none',
})
export class StepJob {
  constructor(
    @Inject(JobEngineService) private readonly engine: JobEngineService,
    @InjectDataSource() private readonly dataSource: DataSource,
  ) {}

  async runJob(
    { name, pauseMs, failures, children }: Step,
    job: JobExecution,
  ): Promise<{ name: string }> {
    const write = (effect: string) =>
      job.manager.query('INSERT INTO ledger (job, effect, run_id) VALUES ($1, $2, $3)', [
        name,
        effect,
        job.jobRunId,
      ]);
    await write('begun');
    await pause(pauseMs);
    for (const child of children)
      await this.engine.enqueueJob(
        StepJob,
        { name: child, pauseMs, failures: 0, children: [] },
        { jobRunIdentifier: child },
      );
    await write('done');
    // A sequence is no part of a transaction: attempts are counted, whatever becomes of them.
    if (failures > 0) {
      const [row] = await this.dataSource.query<{ n: string }[]>(`SELECT nextval('attempts') AS n`);
      if (Number(row!.n) % (failures + 1) !== 0) throw new Error('not yet');
    }
    return { name };
  }
}

@Module({
  imports: [
    TypeOrmModule.forRoot({
      type: 'postgres',
      url: process.env['DATABASE_URL']!,
      autoLoadEntities: true,
      retryAttempts: 0,
    }),
    BildadModule.forRoot({
      role: 'worker',
      tickInterval: 50,
      concurrency: 5,
      maxCrashes: 1_000,
      migrate: false,
      shutdown: { drainTimeout: '5s', killGracePeriod: 100 },
    }),
  ],
  providers: [StepJob],
})
export class LabModule {}

if (process.env['LAB_WORKER']) {
  const app = await NestFactory.createApplicationContext(LabModule, {
    logger: ['error'],
    abortOnError: false,
  });
  app.enableShutdownHooks();
  if (Number(dieAt) > 0) {
    const { subscribers } = app.get<DataSource>(
      (await import('@nestjs/typeorm')).getDataSourceToken(),
    );
    subscribers.push({
      beforeQuery: ({ query }) => passing('before', query),
      afterQuery: ({ query }) => passing('after', query),
    });
  }
  process.send?.('ready');
}
