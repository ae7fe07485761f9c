import type { ModuleMetadata, Provider } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import {
  BildadConfigError,
  performHandler,
  type ContextOf,
  type JobHandler,
  type JobHandlerClass,
  type Performed,
  type PerformOptions,
  type ResultOf,
} from 'nestjs-bildad';

export interface PerformJobOptions extends PerformOptions {
  /** Providers for the class. Cannot be combined with an instance. */
  providers?: Provider[];
  imports?: ModuleMetadata['imports'];
}

/**
 * Runs a handler once without a database. The context is checked as by `enqueueJob`, and nothing is
 * retried.
 * @param handler an instance; or the class, which is built with `providers` and `imports`
 * @returns the outcome; an error that the handler throws is its `error`
 * @throws InvalidJobContextError, BildadConfigError
 */
export async function performJob<H extends JobHandler>(
  handler: H | JobHandlerClass<H>,
  context: ContextOf<H>,
  { providers, imports, ...options }: PerformJobOptions = {},
): Promise<Performed<ResultOf<H>>> {
  if (typeof handler !== 'function') {
    if (providers ?? imports)
      throw new BildadConfigError(
        'providers',
        'cannot be combined with an instance of the handler',
        { where: 'perform' },
      );
    return performHandler(handler, context, options);
  }
  class PerformModule {}
  const app = await NestFactory.createApplicationContext(
    {
      module: PerformModule,
      imports: imports ?? [],
      providers: [handler, ...(providers ?? [])],
    },
    { logger: false, abortOnError: false },
  );
  try {
    const instance = await app.resolve(handler);
    return await performHandler(instance, context, options);
  } finally {
    await app.close();
  }
}
