import {
  EXCEPTION_FILTERS_METADATA,
  GUARDS_METADATA,
  INTERCEPTORS_METADATA,
  PIPES_METADATA,
} from '@nestjs/common/constants.js';
import type { ApplicationConfig } from '@nestjs/core';
import { STATIC_CONTEXT } from '@nestjs/core/injector/constants.js';
import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';
import { BildadConfigError } from '../../job/errors.js';

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
