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
import { outcomeOfThrown } from '../../job/outcome.js';
import { JobForbiddenError } from './execution-context.js';

const DECORATORS = {
  [GUARDS_METADATA]: '@UseGuards',
  [INTERCEPTORS_METADATA]: '@UseInterceptors',
  [PIPES_METADATA]: '@UsePipes',
  [EXCEPTION_FILTERS_METADATA]: '@UseFilters',
};

/** The enhancers of a method: guards, interceptors, pipes and filters. */
interface Enhancers {
  any: boolean;
  pipes: boolean;
}

/**
 * Finds the enhancers of a class, its method and the app.
 * @param globals undefined: enhancers of the whole app do not apply
 * @throws BildadConfigError when Nest made no instance of one: it would be skipped silently
 */
function findEnhancers(
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
  if (globals) for (const key of globalEnhancers(globals, wrapper)) used.add(key);
  checkTransient(wrapper, target.name);
  return { any: used.size > 0, pipes: used.has(PIPES_METADATA) };
}

/**
 * Nest instantiates scoped global enhancers for controllers only, so they are registered with the
 * provider here.
 */
function globalEnhancers(config: ApplicationConfig, wrapper: InstanceWrapper): string[] {
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

/** Refuses a TRANSIENT enhancer that Nest did not construct: it would lack its dependencies. */
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

/** A method of a provider that is called with guards, interceptors, pipes and exception filters. */
export interface PipelineTarget {
  wrapper: InstanceWrapper;
  /** The class whose decorators apply. */
  target: new (...args: never[]) => object;
  methodName: string;
  /** The value of `getType()` of the ExecutionContext. */
  type: string;
  /** The class of the first argument for pipes, when the method has no type metadata. */
  metatype?: unknown;
}

export type Method = (...args: unknown[]) => Promise<unknown>;

const METHOD_ARGUMENTS = 'nestjs-bildad:arguments';
/** The first argument is treated like a request body, so pipes that validate bodies apply. */
const PIPED = Number(RouteParamtypes.BODY);
const PARAMS_FACTORY: ParamsFactory = {
  exchangeKeyForValue: (type, _data, args: unknown[]) => (type === PIPED ? args[0] : args[1]),
};
/** The second argument goes through no pipe. */
const ARGUMENTS = {
  [`${PIPED}:0`]: { index: 0, pipes: [] },
  [`${RouteParamtypes.REQUEST}:1`]: { index: 1, pipes: [] },
};

/**
 * Calls methods of providers with the enhancers that Nest applies to controllers, through Nest's
 * own classes.
 */
@Injectable()
export class Pipelines {
  constructor(private readonly moduleRef: ModuleRef) {}

  /**
   * Null when the method has no enhancers and can be called directly.
   * @param globals whether the enhancers of the whole app apply, too
   * @throws BildadConfigError
   */
  create(target: PipelineTarget, globals: boolean): Pipeline | null {
    const real = this.moduleRef['container'];
    const container = globals ? real : withoutGlobals(real);
    const { any, pipes } = findEnhancers(
      target.wrapper,
      target.target,
      target.methodName,
      globals ? container.applicationConfig : undefined,
    );
    return any ? new Pipeline(container, target, pipes) : null;
  }
}

/** One method with its enhancers. */
export class Pipeline {
  private readonly creator: ExternalContextCreator;
  private readonly filters: ExternalExceptionFilterContext;
  private readonly moduleKey: string;

  constructor(
    container: NestContainer,
    private readonly target: PipelineTarget,
    private readonly pipes: boolean,
  ) {
    const { host } = target.wrapper;
    const found = [...container.getModules()].find(([, one]) => one === host);
    this.moduleKey = found?.[0] ?? '';
    this.creator = createForJobs(ExternalContextCreator.fromContainer(container), this.moduleKey);
    this.filters = new ExternalExceptionFilterContext(container, container.applicationConfig);
    if (pipes) describeArguments(target);
  }

  /**
   * The method of an instance with its enhancers.
   * @param contextId the context of a scoped instance
   */
  bind(instance: object, contextId: ContextId = STATIC_CONTEXT): Method {
    const { target, methodName, wrapper, type } = this.target;
    const method = (instance as Record<string, Method>)[methodName]!;
    const call = this.creator.create(
      instance,
      method,
      methodName,
      this.pipes ? METHOD_ARGUMENTS : undefined,
      this.pipes ? PARAMS_FACTORY : undefined,
      contextId,
      wrapper.id,
      { guards: true, interceptors: true, filters: false },
      type,
    );
    const filters = this.filters.create(
      instance,
      // Only its metadata is used.
      method as (...args: unknown[]) => Promise<void>,
      this.moduleKey,
      contextId,
      wrapper.id,
    );
    return async (...args) => {
      try {
        return await (call(...args) as Promise<unknown>);
      } catch (error) {
        // A snooze or cancel is a decision of the handler, not an exception.
        const { kind } = outcomeOfThrown(error);
        if (kind === 'snoozed' || kind === 'cancelled') throw error;
        const host = new ExecutionContextHost(args, target, method);
        host.setType(type);
        // A filter's result would be a response, so it is ignored and the error stays.
        await filters.invokeCustomFilters(error, host);
        throw error;
      }
    };
  }
}

/** The same modules in an app without global enhancers. */
const withoutGlobals = (container: NestContainer): NestContainer =>
  Object.create(container, {
    applicationConfig: { value: new ApplicationConfig() },
  }) as NestContainer;

/**
 * Overrides methods of Nest's creator: only the first argument goes through pipes, and a refusal
 * throws JobForbiddenError.
 */
function createForJobs(creator: ExternalContextCreator, moduleKey: string): ExternalContextCreator {
  const jobs = Object.create(creator) as ExternalContextCreator;
  // Nest searches the module among providers only. For a controller it would find none and skip
  // enhancers named by class. Nest 11.0 has only the second method.
  jobs['getHostModuleKey'] = () => moduleKey;
  jobs['getContextModuleKey'] = () => moduleKey;
  jobs.getParamValue = (value, metadata, pipes) =>
    Number(metadata.type) === PIPED
      ? creator.getParamValue(value, metadata, pipes)
      : Promise.resolve(value);
  jobs.createGuardsFn = (...args) => {
    const check = creator.createGuardsFn(...args);
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

/** Sets the metadata that parameter decorators set for a route. */
function describeArguments({ target, methodName, metatype }: PipelineTarget) {
  Reflect.defineMetadata(METHOD_ARGUMENTS, ARGUMENTS, target, methodName);
  const on = [target.prototype as object, methodName] as const;
  if (typeof metatype === 'function' && !Reflect.hasMetadata(PARAMTYPES_METADATA, ...on))
    Reflect.defineMetadata(PARAMTYPES_METADATA, [metatype, Object], ...on);
}
