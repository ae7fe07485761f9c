import { Injectable } from '@nestjs/common';
import { DiscoveryService } from '@nestjs/core';
import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';
import { BildadConfigError } from '../../job/errors.js';
import type { JobHandler } from '../../job/job-handler.js';
import type { Settings } from '../../options/settings.js';
import type { ContextContract } from '../../context/context-contract.js';
import type { RegisteredHandler } from '../../lifecycle/handler-registry.js';
import type { TemplateDeclaration } from '../../lifecycle/templates/template.sql.js';
import { jobOptionsOf, type BildadJobOptions } from './bildad-job.decorator.js';
import { declarationOf } from './declaration.js';
import { JOB_CONTEXT_TYPE } from '../pipeline/execution-context.js';
import { isShared, scopedInstance } from '../pipeline/scoped-instance.js';
import { JobRequest } from '../pipeline/execution-context.js';
import { Pipelines } from '../pipeline/pipeline.js';

export interface FoundHandler {
  declaration: TemplateDeclaration;
  handler: RegisteredHandler<ContextContract>;
}

/** Finds the `@BildadJob` providers of the whole app. */
@Injectable()
export class HandlerExplorer {
  constructor(
    private readonly discovery: DiscoveryService,
    private readonly pipelines: Pipelines,
  ) {}

  /** Those that serve this engine. @throws BildadConfigError, InvalidJobSchemaError naming the wrong class */
  find({ name, globalEnhancers }: Settings): FoundHandler[] {
    const found = new Map<unknown, FoundHandler>();
    for (const wrapper of this.discovery.getProviders()) {
      const target = classOf(wrapper);
      const options = jobOptionsOf(target);
      // A class provided by two modules is still one handler: the first instance serves it.
      if (
        !target ||
        !options ||
        // The provider that it refers to is among them.
        wrapper.isAlias ||
        found.has(target) ||
        (typeof options.engine === 'string' && options.engine !== name)
      )
        continue;
      const described = this.describe(target, options, wrapper, globalEnhancers);
      found.set(target, described);
    }
    return [...found.values()];
  }

  private describe(
    target: Constructor,
    options: BildadJobOptions,
    wrapper: InstanceWrapper,
    globalEnhancers: boolean,
  ): FoundHandler {
    if (typeof (target.prototype as Partial<JobHandler>).runJob !== 'function')
      throw new BildadConfigError(target.name, 'must have a method runJob(context, job)', {
        where: `@BildadJob of ${target.name}`,
      });
    const { template, ...declared } = declarationOf(options, target.name);
    return {
      declaration: template,
      handler: {
        ...declared,
        code: template.code,
        className: target.name,
        resolve: this.resolver(target, options, wrapper, globalEnhancers),
      },
    };
  }

  private resolver(
    target: Constructor,
    { context }: BildadJobOptions,
    wrapper: InstanceWrapper,
    globalEnhancers: boolean,
  ): RegisteredHandler['resolve'] {
    const pipeline = this.pipelines.create(
      { wrapper, target, methodName: 'runJob', type: JOB_CONTEXT_TYPE, metatype: context },
      globalEnhancers,
    );
    if (isShared(wrapper)) {
      if (!pipeline) return () => wrapper.instance as JobHandler;
      const handler = { runJob: pipeline.bind(wrapper.instance as JobHandler) };
      return () => handler;
    }
    return async (...given) => {
      const request = new JobRequest(...given);
      const { instance, contextId } = await scopedInstance<JobHandler>(wrapper, request);
      return pipeline ? { runJob: pipeline.bind(instance, contextId) } : instance;
    };
  }
}

type Constructor = new (...args: any[]) => JobHandler;

/** A factory's wrapper names the factory: what it made knows its class. */
function classOf({ instance, metatype }: InstanceWrapper): Constructor | undefined {
  const made = instance as { constructor?: unknown } | undefined;
  return [metatype, made?.constructor].find((target) => jobOptionsOf(target)) as
    Constructor | undefined;
}
