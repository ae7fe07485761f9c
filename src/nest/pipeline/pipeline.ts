import { ForbiddenException, Injectable } from '@nestjs/common';
import { PARAMTYPES_METADATA } from '@nestjs/common/constants.js';
import { RouteParamtypes } from '@nestjs/common/enums/route-paramtypes.enum.js';
import {
  ApplicationConfig,
  ExternalContextCreator,
  ModuleRef,
  type ContextId,
  type NestContainer,
  type ParamsFactory,
} from '@nestjs/core';
import { ExternalExceptionFilterContext } from '@nestjs/core/exceptions/external-exception-filter-context.js';
import { ExecutionContextHost } from '@nestjs/core/helpers/execution-context-host.js';
import { STATIC_CONTEXT } from '@nestjs/core/injector/constants.js';
import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';
import { outcomeOfThrown } from '../../job/outcome-of-error.js';
import { enhancersOf } from './enhancers.js';
import { JobForbiddenError } from './forbidden.js';

/** A method of a provider that guards, interceptors, pipes and exception filters are to stand around. */
export interface PipelineTarget {
  wrapper: InstanceWrapper;
  /** The class whose decorators count. */
  target: new (...args: never[]) => object;
  methodName: string;
  /** What `getType()` of the ExecutionContext says. */
  type: string;
  /** The class of the first argument, where the method's own decorators do not tell: pipes are told of it. */
  metatype?: unknown;
}

export type Method = (...args: unknown[]) => Promise<unknown>;

const METHOD_ARGUMENTS = 'nestjs-bildad:arguments';
/** As of a body: what is validated of a route is validated here. */
const PIPED = Number(RouteParamtypes.BODY);
const WHOLE: ParamsFactory = {
  exchangeKeyForValue: (type, _data, args: unknown[]) => (type === PIPED ? args[0] : args[1]),
};
/** The second argument is passed on as it is. */
const ARGUMENTS = {
  [`${PIPED}:0`]: { index: 0, pipes: [] },
  [`${RouteParamtypes.REQUEST}:1`]: { index: 1, pipes: [] },
};

/** Puts around methods of providers what Nest puts around those of controllers, with Nest's own means. */
@Injectable()
export class Pipelines {
  constructor(private readonly moduleRef: ModuleRef) {}

  /**
   * Null where nothing stands around it: then it is to be called as it is.
   * @param globals whether what is there for the whole app stands around it, too
   * @throws BildadConfigError
   */
  around(target: PipelineTarget, globals: boolean): Pipeline | null {
    const real = this.moduleRef['container'];
    const container = globals ? real : withoutGlobals(real);
    const { any, pipes } = enhancersOf(
      target.wrapper,
      target.target,
      target.methodName,
      globals ? container.applicationConfig : undefined,
    );
    return any ? new Pipeline(container, target, pipes) : null;
  }
}

/** What stands around one method. */
export class Pipeline {
  private readonly creator: ExternalContextCreator;
  private readonly filters: ExternalExceptionFilterContext;
  private readonly moduleKey: string;

  constructor(
    container: NestContainer,
    private readonly of: PipelineTarget,
    private readonly pipes: boolean,
  ) {
    const { host } = of.wrapper;
    const found = [...container.getModules()].find(([, one]) => one === host);
    this.moduleKey = found?.[0] ?? '';
    this.creator = forJobs(ExternalContextCreator.fromContainer(container), this.moduleKey);
    this.filters = new ExternalExceptionFilterContext(container, container.applicationConfig);
    if (pipes) describeArguments(of);
  }

  /**
   * The method with all that stands around it.
   * @param contextId what the instance was made in, where it serves one call
   */
  bind(instance: object, contextId: ContextId = STATIC_CONTEXT): Method {
    const { target, methodName, wrapper, type } = this.of;
    const method = (instance as Record<string, Method>)[methodName]!;
    const call = this.creator.create(
      instance,
      method,
      methodName,
      this.pipes ? METHOD_ARGUMENTS : undefined,
      this.pipes ? WHOLE : undefined,
      contextId,
      wrapper.id,
      { guards: true, interceptors: true, filters: false },
      type,
    );
    const filters = this.filters.create(
      instance,
      // Only its metadata counts.
      method as (...args: unknown[]) => Promise<void>,
      this.moduleKey,
      contextId,
      wrapper.id,
    );
    return async (...args) => {
      try {
        return await (call(...args) as Promise<unknown>);
      } catch (error) {
        // What a handler says of its job is no exception.
        const { kind } = outcomeOfThrown(error);
        if (kind === 'snoozed' || kind === 'cancelled') throw error;
        const host = new ExecutionContextHost(args, target, method);
        host.setType(type);
        // What it returns would be a response. A failure stays one.
        await filters.invokeCustomFilters(error, host);
        throw error;
      }
    };
  }
}

/** The same modules, in an app that has nothing for all of its routes. */
const withoutGlobals = (container: NestContainer): NestContainer =>
  Object.create(container, {
    applicationConfig: { value: new ApplicationConfig() },
  }) as NestContainer;

/**
 * Some of its methods are others: only the first argument goes through pipes, a refusal has a name of its own, and the
 * module is told.
 */
function forJobs(creator: ExternalContextCreator, moduleKey: string): ExternalContextCreator {
  const jobs = Object.create(creator) as ExternalContextCreator;
  // Nest looks for it among providers: of a controller it would find none, and leave out what a decorator names by class.
  // Nest 11.0 has the second of them only.
  jobs['getHostModuleKey'] = () => moduleKey;
  jobs['getContextModuleKey'] = () => moduleKey;
  jobs.getParamValue = (value, metadata, pipes) =>
    Number(metadata.type) === PIPED
      ? creator.getParamValue(value, metadata, pipes)
      : Promise.resolve(value);
  jobs.createGuardsFn = (...given) => {
    const check = creator.createGuardsFn(...given);
    return (
      check &&
      (async (args: unknown[]) => {
        try {
          await (check(args) as Promise<void>);
        } catch (error) {
          throw error instanceof ForbiddenException ? new JobForbiddenError(error) : error;
        }
      })
    );
  };
  return jobs;
}

/** What decorators of parameters say of a route. */
function describeArguments({ target, methodName, metatype }: PipelineTarget) {
  Reflect.defineMetadata(METHOD_ARGUMENTS, ARGUMENTS, target, methodName);
  const on = [target.prototype as object, methodName] as const;
  if (typeof metatype === 'function' && !Reflect.hasMetadata(PARAMTYPES_METADATA, ...on))
    Reflect.defineMetadata(PARAMTYPES_METADATA, [metatype, Object], ...on);
}
