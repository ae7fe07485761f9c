import { ConfigurableModuleBuilder, type Provider } from '@nestjs/common';
import { DiscoveryModule } from '@nestjs/core';
import { SchedulerRegistry } from '@nestjs/schedule';
import { getDataSourceToken, TypeOrmModule } from '@nestjs/typeorm';
import type { DataSource } from 'typeorm';
import type { BildadModuleExtras, BildadModuleOptions } from '../../options/module-options.js';
import { FOR_ROOT, readExtras, readSettings } from '../../options/settings.js';
import { bildadEntities } from '../../database/entities/index.js';
import { BILDAD_EXTENSION, type EngineExtension } from './engine-extension.js';
import { settingsInHost } from '../isolation-host/host-environment.js';
import { BILDAD_RUNTIME, createRuntime } from './runtime.js';
import { MAX_TIMER_MS, type Ticker } from '../../concurrency/timers.js';

const EXTRAS: BildadModuleExtras = {
  isGlobal: undefined,
  dataSource: undefined,
  schema: undefined,
};

export const { ConfigurableModuleClass, MODULE_OPTIONS_TOKEN, OPTIONS_TYPE, ASYNC_OPTIONS_TYPE } =
  new ConfigurableModuleBuilder<BildadModuleOptions>({ moduleName: 'Bildad' })
    .setClassMethodName('forRoot')
    .setExtras<BildadModuleExtras>(EXTRAS, (definition, given) => {
      // Nest passes the options too.
      const extras = {
        isGlobal: given.isGlobal,
        dataSource: given.dataSource,
        schema: given.schema,
      };
      const { isGlobal, dataSource, schema } = readExtras(extras, '', FOR_ROOT);
      const entities = TypeOrmModule.forFeature(Object.values(bildadEntities(schema)), dataSource);
      return {
        ...definition,
        global: isGlobal,
        imports: [...(definition.imports ?? []), DiscoveryModule, entities],
        providers: [...(definition.providers ?? []), runtimeProvider(schema, dataSource)],
        exports: [...(definition.exports ?? []), entities],
      };
    })
    .build();

function runtimeProvider(schema: string, dataSourceName: string): Provider {
  return {
    provide: BILDAD_RUNTIME,
    inject: [
      MODULE_OPTIONS_TOKEN,
      getDataSourceToken(dataSourceName),
      // The host's, if it has one. Importing ScheduleModule.forRoot() here as well would fire every
      // @Cron and @Interval of the host twice.
      { token: SchedulerRegistry, optional: true },
      { token: BILDAD_EXTENSION, optional: true },
    ],
    useFactory: (
      options: BildadModuleOptions | undefined,
      dataSource: DataSource,
      registry: SchedulerRegistry = new SchedulerRegistry(),
      extension?: EngineExtension,
    ) => {
      const shaped = extension?.options
        ? extension.options(options ?? {}, { dataSource, schema })
        : options;
      const settings = settingsInHost(readSettings(shaped));
      const bildad = createRuntime(
        dataSource,
        schema,
        settings,
        scheduleTicker(registry, `bildad:${schema}:${settings.name}`),
      );
      if (extension?.aroundRun)
        bildad.extensions.aroundRun.register('engine extension', ({ run }, _handler, next) =>
          extension.aroundRun!(run, next),
        );
      const { name, currentManager } = settings;
      const { events } = bildad;
      extension?.made?.({ name, schema, dataSource, events, currentManager });
      return bildad;
    },
  };
}

/**
 * Intervals in the registry of `@nestjs/schedule`, named `bildad:<schema>:<engine>:<interval>`, for
 * operators to list.
 */
export function scheduleTicker(registry: SchedulerRegistry, prefix: string): Ticker {
  return {
    every(interval, ms, work) {
      const name = `${prefix}:${interval}`;
      const timer: unknown = setInterval(work, Math.min(ms, MAX_TIMER_MS));
      registry.addInterval(name, timer);
      return () => {
        clearInterval(timer as NodeJS.Timeout);
        // The host's ScheduleModule may have emptied the registry before us.
        if (registry.doesExist('interval', name)) registry.deleteInterval(name);
      };
    },
  };
}
