import 'reflect-metadata';
import { openSync, writeSync } from 'node:fs';
import { setTimeout as wait } from 'node:timers/promises';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { BildadJob, BildadModule, JobEngineService, type JobHandler } from 'nestjs-bildad';
import { nowMs } from '../ledger.js';
import { setting } from '../settings.js';

// Bildad with its defaults, as bench/peers/faults.ts has the peers.

const ledger = openSync(setting('LAB_LEDGER'), 'a');
const say = (what: string, id: string) =>
  writeSync(ledger, `${JSON.stringify({ at: nowMs(), what, id, pid: process.pid })}\n`);

interface Task {
  id: string;
  ms: number;
}

@BildadJob({ code: 'FAULTS' })
class FaultsJob implements JobHandler<Task> {
  async runJob({ id, ms }: Task): Promise<void> {
    say('start', id);
    await wait(ms);
    say('end', id);
  }
}

const produces = process.argv[3] === 'produce';

@Module({
  imports: [
    TypeOrmModule.forRoot({
      type: 'postgres',
      url: setting('DATABASE_URL'),
      autoLoadEntities: true,
    }),
    BildadModule.forRoot({
      role: produces ? 'producer' : 'worker',
      concurrency: 5,
    }),
  ],
  providers: [FaultsJob],
})
class PeerModule {}

const app = await NestFactory.createApplicationContext(PeerModule, {
  logger: false,
});
const engine = app.get(JobEngineService);
process.on('message', (task: Task) => {
  void engine.enqueueJob('FAULTS', task).then(
    () => process.send!({ sent: task.id }),
    (error: unknown) => process.send!({ failed: String(error) }),
  );
});
process.on('SIGTERM', () => {
  void app.close().then(() => process.exit(0));
});
process.on('disconnect', () => process.exit());
process.send!({ ready: true });
