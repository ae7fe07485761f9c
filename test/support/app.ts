import 'reflect-metadata';
import type { INestApplicationContext, ModuleMetadata, Provider } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import {
  BildadModule,
  JobEngineService,
  JobEvents,
  JobsService,
  type BildadModuleExtras,
  type BildadModuleOptions,
  type JobEventMap,
} from 'nestjs-bildad';
import type { DataSource } from 'typeorm';
import { createDatabase, type TestDatabase } from './database.js';

export interface TestApp {
  app: INestApplicationContext;
  database: TestDatabase;
  engine: JobEngineService;
  jobs: JobsService;
  events: JobEvents;
  dataSource: DataSource;
  /** Runs SQL on the app's own DataSource. */
  sql: <T = any>(text: string, values?: unknown[]) => Promise<T[]>;
  /** The next event that fits; ask for it before what causes it. */
  next: <E extends keyof JobEventMap>(
    event: E,
    fits?: (payload: JobEventMap[E][0]) => boolean,
  ) => Promise<JobEventMap[E][0]>;
  /** Closes the app, and drops the database if it was made for it. */
  close(): Promise<void>;
}

export interface TestAppOptions {
  /** Handler classes and whatever else the app provides. */
  providers?: Provider[];
  imports?: ModuleMetadata['imports'];
  /** Default here: the engine never ticks by itself, retries come at once, deaf handlers get 100 ms. */
  options?: BildadModuleOptions & BildadModuleExtras;
  /** Share another app's database: a second node. */
  database?: TestDatabase;
}

/** A real Nest app on a real database. */
export async function bootApp({
  providers = [],
  imports = [],
  options = {},
  database,
}: TestAppOptions = {}): Promise<TestApp> {
  const own = database ?? (await createDatabase());
  class AppModule {}
  try {
    const app = await NestFactory.createApplicationContext(
      {
        module: AppModule,
        providers,
        imports: [
          TypeOrmModule.forRoot({
            type: 'postgres',
            url: own.url,
            autoLoadEntities: true,
            retryAttempts: 0,
          }),
          BildadModule.forRoot({
            tickInterval: false,
            backoff: 'none',
            shutdown: { drainTimeout: '1s', killGracePeriod: 100 },
            ...options,
          }),
          ...imports,
        ],
      },
      { logger: false, abortOnError: false },
    );
    const events = app.get(JobEvents);
    const dataSource = app.get<DataSource>(getDataSourceToken());
    return {
      app,
      database: own,
      engine: app.get(JobEngineService),
      jobs: app.get(JobsService),
      events,
      dataSource,
      sql: (text, values) => dataSource.query(text, values),
      next: (event, fits = () => true) =>
        new Promise((resolve) => {
          const off = events.on(event, (...[payload]) => {
            if (!fits(payload)) return;
            off();
            resolve(payload);
          });
        }),
      close: async () => {
        await app.close();
        if (!database) await own.drop();
      },
    };
  } catch (error) {
    if (!database) await own.drop();
    throw error;
  }
}
