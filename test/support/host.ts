import 'reflect-metadata';
import {
  type DynamicModule,
  type INestApplicationContext,
  type LoggerService,
  type ModuleMetadata,
  type Provider,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import { BildadModule, type BildadModuleExtras, type BildadModuleOptions } from 'nestjs-bildad';
import { DataSource, type DataSourceOptions } from 'typeorm';

export interface HostOptions {
  url: string;
  providers?: Provider[];
  imports?: ModuleMetadata['imports'];
  /** Options of the Bildad module, or other modules in its place. */
  bildad?: (BildadModuleOptions & BildadModuleExtras) | DynamicModule[];
  /** Overrides `autoLoadEntities: true` and the url. */
  typeorm?: Partial<DataSourceOptions> & {
    autoLoadEntities?: boolean;
    manualInitialization?: boolean;
  };
  logger?: LoggerService;
}

/** Minimal options for a test: no ticks, immediate retries, a kill grace period of 100 ms. */
export const QUIET = {
  tickInterval: false,
  backoff: 'none',
  shutdown: { drainTimeout: '1s', killGracePeriod: 100 },
} as const satisfies BildadModuleOptions;

/**
 * A host app with more control over its modules than `bootApp` offers. Nest closes nothing when
 * a boot fails: a pool opened by TypeORM stays open until its idle timeout. So this function
 * ends the pool, and the leak check finds anything else that is left.
 */
export async function bootHost({
  url,
  providers = [],
  imports = [],
  bildad = {},
  typeorm = {},
  logger,
}: HostOptions): Promise<INestApplicationContext> {
  class HostModule {}
  const opened: DataSource[] = [];
  const modules = Array.isArray(bildad) ? bildad : [BildadModule.forRoot({ ...QUIET, ...bildad })];
  try {
    return await NestFactory.createApplicationContext(
      {
        module: HostModule,
        providers,
        imports: [
          TypeOrmModule.forRootAsync({
            useFactory: () => ({
              type: 'postgres' as const,
              url,
              autoLoadEntities: true,
              retryAttempts: 0,
              ...(typeorm as object),
            }),
            dataSourceFactory: (options) => {
              const dataSource = new DataSource(options!);
              opened.push(dataSource);
              return Promise.resolve(dataSource);
            },
          }),
          ...modules,
          ...imports,
        ],
      },
      { logger: logger ?? false, abortOnError: false },
    );
  } catch (error) {
    for (const dataSource of opened) if (dataSource.isInitialized) await dataSource.destroy();
    throw error;
  }
}

/** The error of a boot that must fail. */
export async function bootError(host: HostOptions): Promise<Error> {
  let app: INestApplicationContext;
  try {
    app = await bootHost(host);
  } catch (error) {
    return error as Error;
  }
  await app.close();
  throw new Error('it has booted');
}
