import 'reflect-metadata';
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import { BildadModule, JobEngineService, JobsService } from 'nestjs-bildad';
import { startPostgres } from 'nestjs-bildad/testing';
import type { DataSource } from 'typeorm';
import { runLab } from './lab.js';
import { StepJob } from './worker.js';

/**
 * The lab of transactions: `npm run lab:transactions -- --jobs 5000 --kills 200`. The last line is one JSON object; the exit
 * code is 1 where an effect is not there exactly once.
 */
const { values } = parseArgs({
  options: {
    jobs: { type: 'string', default: '5000' },
    kills: { type: 'string', default: '200' },
    nodes: { type: 'string', default: '4' },
    seed: { type: 'string', default: String(randomInt(2 ** 31)) },
  },
});

const server = await startPostgres({
  settings: { synchronous_commit: 'on', max_connections: '200' },
});

@Module({
  imports: [
    TypeOrmModule.forRoot({
      type: 'postgres',
      url: server.url,
      autoLoadEntities: true,
    }),
    BildadModule.forRoot({ role: 'producer' }),
  ],
  providers: [StepJob],
})
class ProducerModule {}

const app = await NestFactory.createApplicationContext(ProducerModule, {
  logger: ['error'],
});
const figures = await runLab(
  {
    engine: app.get(JobEngineService),
    jobs: app.get(JobsService),
    dataSource: app.get<DataSource>(getDataSourceToken()),
  },
  {
    seed: Number(values.seed),
    jobs: Number(values.jobs),
    kills: Number(values.kills),
    nodes: Number(values.nodes),
    worker: new URL('./worker.js', import.meta.url),
    databaseUrl: server.url,
  },
  (text) => console.log(text),
);
await app.close();
await server.stop();
console.log(JSON.stringify(figures));
process.exitCode = figures.violations.length > 0 ? 1 : 0;
