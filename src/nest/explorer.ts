import { Injectable } from '@nestjs/common';
import { ContextIdFactory, DiscoveryService, ModuleRef } from '@nestjs/core';
import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';
import { BildadConfigError } from '../model/errors.js';
import type { JobHandler } from '../model/job-handler.js';
import { text } from '../model/option-values.js';
import type { ContextContract } from '../policy/context.js';
import type { RegisteredHandler } from '../runner/handler-registry.js';
import type { TemplateDeclaration } from '../store/template.store.js';
import { jobOptionsOf, type BildadJobOptions } from './bildad-job.decorator.js';
import {
  contractOf,
  declarationOf,
  isolationOf,
  traitsOf,
  transactionalOf,
} from './declaration.js';

export interface FoundHandler {
  declaration: TemplateDeclaration;
  handler: RegisteredHandler<ContextContract>;
}

/** Finds the `@BildadJob` providers of the whole app. */
@Injectable()
export class HandlerExplorer {
  constructor(
    private readonly discovery: DiscoveryService,
    private readonly moduleRef: ModuleRef,
  ) {}

  /** Those that serve this engine. @throws BildadConfigError, InvalidJobSchemaError naming the wrong class */
  find(engineName: string): FoundHandler[] {
    const found = new Map<unknown, FoundHandler>();
    for (const wrapper of this.discovery.getProviders()) {
      const target = classOf(wrapper);
      const options = jobOptionsOf(target);
      // A class provided by two modules is still one handler: the first instance serves it.
      if (
        !target ||
        !options ||
        found.has(target) ||
        engineOf(options, target.name, engineName) !== engineName
      )
        continue;
      found.set(target, this.describe(target, options, wrapper));
    }
    return [...found.values()];
  }

  private describe(
    target: Constructor,
    options: BildadJobOptions,
    wrapper: InstanceWrapper,
  ): FoundHandler {
    if (typeof (target.prototype as Partial<JobHandler>).runJob !== 'function')
      throw new BildadConfigError(
        `@BildadJob of ${target.name}`,
        'a class with a method runJob(context, job)',
        'no runJob',
      );
    const declaration = declarationOf(options, target.name);
    return {
      declaration,
      handler: {
        code: declaration.code,
        className: target.name,
        contract: contractOf(options, target.name),
        isolation: isolationOf(options, target.name),
        traits: traitsOf(options, target.name),
        transactional: transactionalOf(options, target.name),
        backoff:
          typeof options.backoff === 'function' ? options.backoff : undefined,
        resolve: this.resolver(target, wrapper),
      },
    };
  }

  private resolver(
    target: Constructor,
    wrapper: InstanceWrapper,
  ): RegisteredHandler['resolve'] {
    if (wrapper.isDependencyTreeStatic() && !wrapper.isTransient)
      return () => wrapper.instance as JobHandler;
    // REQUEST-scoped, or depending on what is: an instance of its own for each run.
    const token = (wrapper.token ?? target) as Constructor;
    return () =>
      this.moduleRef.resolve<JobHandler>(token, ContextIdFactory.create(), {
        strict: false,
      });
  }
}

function engineOf(
  { engine }: BildadJobOptions,
  className: string,
  every: string,
): string {
  return engine === undefined
    ? every
    : text(engine, `@BildadJob of ${className}: engine`);
}

type Constructor = new (...args: any[]) => JobHandler;

/** A factory's wrapper names the factory: what it made knows its class. */
function classOf({
  instance,
  metatype,
}: InstanceWrapper): Constructor | undefined {
  const made = instance as { constructor?: unknown } | undefined;
  return [metatype, made?.constructor].find((target) =>
    jobOptionsOf(target),
  ) as Constructor | undefined;
}
