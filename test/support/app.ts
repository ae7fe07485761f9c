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
  /** Runs SQL on the app's DataSource. */
  sql: <T = any>(text: string, values?: unknown[]) => Promise<T[]>;
  /** The next event that matches. Call it before the action that causes the event. */
  next: <E extends keyof JobEventMap>(
    event: E,
    fits?: (payload: JobEventMap[E][0]) => boolean,
  ) => Promise<JobEventMap[E][0]>;
  /** Closes the app and drops the database that was created for it. */
  close(): Promise<void>;
}

export interface TestAppOptions {
  /** Handler classes and other providers of the app. */
  providers?: Provider[];
  imports?: ModuleMetadata['imports'];
  /** The test default: no ticks, immediate retries, a kill grace period of 100 ms. */
  options?: BildadModuleOptions & BildadModuleExtras;
  /** Uses another app's database: a second node. */
  database?: TestDatabase;
}

/** Boots a real Nest app on a real database. */
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
