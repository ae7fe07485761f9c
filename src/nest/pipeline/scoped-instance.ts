import { ContextIdFactory, ModuleRef, type ContextId } from '@nestjs/core';
import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';
import { REQUEST_CONTEXT_ID } from '@nestjs/core/router/request/request-constants.js';

/** An instance for one call, and its context. */
export interface ScopedInstance<T> {
  instance: T;
  contextId: ContextId;
}

/**
 * Whether one instance serves all calls: neither it nor a dependency is REQUEST-scoped, and it is
 * not TRANSIENT.
 */
export const isShared = (wrapper: InstanceWrapper): boolean =>
  wrapper.isDependencyTreeStatic() && !wrapper.isTransient;

/**
 * Creates an instance of a scoped provider for one call, with its dependencies.
 * @param request the object that `@Inject(REQUEST)` provides and a ContextIdStrategy receives. In a
 *   durable tree, which outlives the call, `@Inject(REQUEST)` provides the strategy's payload
 *   instead, as in a route
 * @throws the error of a constructor
 */
export async function scopedInstance<T>(
  wrapper: InstanceWrapper,
  request: object,
): Promise<ScopedInstance<T>> {
  // The ModuleRef of its own module, because other modules may provide the class, too.
  const moduleRef = wrapper.host!.getProviderByKey<ModuleRef>(ModuleRef).instance;
  const contextId = ContextIdFactory.getByRequest(request) as ContextId & {
    payload?: object;
  };
  if (!(REQUEST_CONTEXT_ID in request)) {
    // Later calls with the same request share its instances.
    Object.defineProperty(request, REQUEST_CONTEXT_ID, { value: contextId });
    moduleRef.registerRequestByContextId(
      wrapper.isDependencyTreeDurable()
        ? contextId.payload
        : Object.assign(request, contextId.payload),
      contextId,
    );
  }
  const instance = await moduleRef.resolve<T>(wrapper.token as abstract new () => T, contextId);
  return { instance, contextId };
}
