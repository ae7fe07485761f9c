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
  /** Options of the one Bildad module, or modules instead of it. */
  bildad?: (BildadModuleOptions & BildadModuleExtras) | DynamicModule[];
  /** Over `autoLoadEntities: true` and the url. */
  typeorm?: Partial<DataSourceOptions> & {
    autoLoadEntities?: boolean;
    manualInitialization?: boolean;
  };
  logger?: LoggerService;
}

/** As little as a test needs: nothing ticks, retries come at once, deaf handlers get 100 ms. */
export const QUIET = {
  tickInterval: false,
  backoff: 'none',
  shutdown: { drainTimeout: '1s', killGracePeriod: 100 },
} as const satisfies BildadModuleOptions;

/**
 * A host that decides more of itself than `bootApp` lets it. Nest closes nothing when a boot fails: a
 * pool that TypeORM opened stays open until its idle timeout, so the test ends it, and the leak check
 * sees whatever else is left.
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

/** What a host that must not boot says. */
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
