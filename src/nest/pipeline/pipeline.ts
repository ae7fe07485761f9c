import {
  EXCEPTION_FILTERS_METADATA,
  GUARDS_METADATA,
  INTERCEPTORS_METADATA,
  PIPES_METADATA,
  PARAMTYPES_METADATA,
} from '@nestjs/common/constants.js';
import {
  ApplicationConfig,
  ExternalContextCreator,
  ModuleRef,
  type ContextId,
  type NestContainer,
  type ParamsFactory,
} from '@nestjs/core';
import { STATIC_CONTEXT } from '@nestjs/core/injector/constants.js';
import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';
import { BildadConfigError } from '../../job/errors.js';
import { ForbiddenException, Injectable } from '@nestjs/common';
import { RouteParamtypes } from '@nestjs/common/enums/route-paramtypes.enum.js';
import { ExternalExceptionFilterContext } from '@nestjs/core/exceptions/external-exception-filter-context.js';
import { ExecutionContextHost } from '@nestjs/core/helpers/execution-context-host.js';
import { outcomeOfThrown } from '../../job/outcome-of-error.js';
import { JobForbiddenError } from './execution-context.js';

const DECORATORS = {
  [GUARDS_METADATA]: '@UseGuards',
  [INTERCEPTORS_METADATA]: '@UseInterceptors',
  [PIPES_METADATA]: '@UsePipes',
  [EXCEPTION_FILTERS_METADATA]: '@UseFilters',
};

/** What stands around a method of a provider. */
export interface Enhancers {
  any: boolean;
  pipes: boolean;
}

/**
 * What the decorators of a class and its method name, and what is there for the whole app.
 * @param globals undefined: what is there for the whole app does not count
 * @throws BildadConfigError where Nest has not made an instance of it: left alone, it would not be called
 */
export function enhancersOf(
  wrapper: InstanceWrapper,
  target: new (...args: never[]) => object,
  methodName: string,
  globals: ApplicationConfig | undefined,
): Enhancers {
  const method: unknown = (target.prototype as Record<string, unknown>)[methodName];
  const used = new Set<string>();
  for (const [key, decorator] of Object.entries(DECORATORS))
    for (const on of [target, method as object]) {
      const given = (Reflect.getMetadata(key, on) ?? []) as unknown[];
      if (given.length > 0) used.add(key);
      for (const one of given)
        if (typeof one === 'function' && !wrapper.host?.injectables.has(one))
          throw new BildadConfigError(
            `${decorator}(${one.name}) of ${target.name}`,
            `needs a provider that Nest constructs itself, and a factory provides ${target.name}: pass an instance to ${decorator} instead of a class`,
          );
    }
  if (globals) for (const key of globalOnes(globals, wrapper)) used.add(key);
  checkTransient(wrapper, target.name);
  return { any: used.size > 0, pipes: used.has(PIPES_METADATA) };
}

/** Nest makes those that are scoped for controllers only, unless they are said to belong to a provider. */
function globalOnes(config: ApplicationConfig, wrapper: InstanceWrapper): string[] {
  const scoped: [string, InstanceWrapper[]][] = [
    [GUARDS_METADATA, config.getGlobalRequestGuards()],
    [INTERCEPTORS_METADATA, config.getGlobalRequestInterceptors()],
    [PIPES_METADATA, config.getGlobalRequestPipes()],
    [EXCEPTION_FILTERS_METADATA, config.getGlobalRequestFilters()],
  ];
  for (const one of scoped.flatMap(([, wrappers]) => wrappers))
    if (!wrapper.getEnhancersMetadata()?.includes(one)) wrapper.addEnhancerMetadata(one);
  const shared: [string, unknown[]][] = [
    [GUARDS_METADATA, config.getGlobalGuards()],
    [INTERCEPTORS_METADATA, config.getGlobalInterceptors()],
    [PIPES_METADATA, config.getGlobalPipes()],
    [EXCEPTION_FILTERS_METADATA, config.getGlobalFilters()],
  ];
  return [...scoped, ...shared].filter(([, ones]) => ones.length > 0).map(([key]) => key);
}

/** An instance whose constructor did not run would have none of its dependencies. */
function checkTransient(wrapper: InstanceWrapper, className: string): void {
  if (!wrapper.isDependencyTreeStatic() || wrapper.isTransient) return;
  for (const one of wrapper.getEnhancersMetadata() ?? [])
    if (
      one.isTransient &&
      !one.getInstanceByContextId(STATIC_CONTEXT, wrapper.id).isConstructorCalled
    )
      throw new BildadConfigError(
        `${one.name} of ${className}`,
        'must have the scope DEFAULT or REQUEST, not TRANSIENT: Nest creates no instance of it for a job',
      );
}

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
