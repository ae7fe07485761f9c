import type { DynamicModule, INestApplicationContext, Type } from '@nestjs/common';
import { ModulesContainer, NestFactory } from '@nestjs/core';
import { ScheduleModule } from '@nestjs/schedule';
import { DataSource } from 'typeorm';
import { FOR_ROOT } from '../../options/settings.js';
import { BildadConfigError } from '../../job/errors.js';
import type { HostSetup } from '../../isolation/host-messages.js';
import { BILDAD_RUNTIME, type BildadRuntime } from '../module/runtime.js';

export interface BootedHost {
  app: INestApplicationContext;
  bildad: BildadRuntime;
  dataSources: DataSource[];
}

/** The app's module with its providers, and nothing of it that runs by itself. @throws BildadConfigError, what the module throws */
export async function bootHost(setup: HostSetup): Promise<BootedHost> {
  stopSchedules();
  const app = await NestFactory.createApplicationContext(await moduleOf(setup), {
    logger: ['error', 'warn'],
    abortOnError: false,
  });
  try {
    const bildad = runtimeOf(app, setup);
    return { app, bildad, dataSources: instancesOf(app, DataSource) };
  } catch (error) {
    await app.close();
    throw error;
  }
}

/** The app's @Cron, @Interval and @Timeout methods run in the app. */
function stopSchedules(): void {
  const forRoot = ScheduleModule.forRoot.bind(ScheduleModule);
  const none = () => forRoot({ cronJobs: false, intervals: false, timeouts: false });
  ScheduleModule.forRoot = none;
  ScheduleModule.forRootAsync = none;
}

async function moduleOf({ moduleUrl, exportName }: HostSetup): Promise<Type | DynamicModule> {
  let loaded: Record<string, unknown>;
  try {
    loaded = (await import(moduleUrl)) as Record<string, unknown>;
  } catch (error) {
    throw new BildadConfigError(
      'isolation.module',
      'must be the URL of a module that can be imported',
      { got: moduleUrl, where: FOR_ROOT, cause: error },
    );
  }
  // What CommonJS exports may be under `default` only.
  const found =
    loaded[exportName] ?? (loaded['default'] as Record<string, unknown> | undefined)?.[exportName];
  if (!isModule(found))
    throw new BildadConfigError(
      'isolation.export',
      `must be the name of a Nest module, a class or a dynamic one, that ${moduleUrl} exports`,
      { got: exportName, where: FOR_ROOT },
    );
  return found;
}

const isModule = (found: unknown): found is Type | DynamicModule =>
  typeof found === 'function' || (typeof found === 'object' && found !== null && 'module' in found);

function runtimeOf(
  app: INestApplicationContext,
  { schema, engineName, moduleUrl }: HostSetup,
): BildadRuntime {
  const found = providersOf(app)
    .filter(({ token }) => token === BILDAD_RUNTIME)
    .map(({ instance }) => instance as BildadRuntime)
    .find(({ store, settings }) => store.tables.schema === schema && settings.name === engineName);
  if (!found)
    throw new BildadConfigError(
      'isolation.module',
      `must import BildadModule with the engine "${engineName}" in the schema "${schema}"`,
      { got: moduleUrl, where: FOR_ROOT },
    );
  return found;
}

const providersOf = (app: INestApplicationContext) =>
  [...app.get(ModulesContainer, { strict: false }).values()].flatMap(({ providers }) => [
    ...providers.values(),
  ]);

function instancesOf<T>(
  app: INestApplicationContext,
  type: abstract new (...args: any[]) => T,
): T[] {
  const found = providersOf(app)
    .map(({ instance }) => instance)
    .filter((instance): instance is T => instance instanceof type);
  return [...new Set(found)];
}
