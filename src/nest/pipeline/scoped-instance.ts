import { ContextIdFactory, ModuleRef, type ContextId } from '@nestjs/core';
import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';
import { REQUEST_CONTEXT_ID } from '@nestjs/core/router/request/request-constants.js';

/** An instance for one call, and what it was made in. */
export interface ScopedInstance<T> {
  instance: T;
  contextId: ContextId;
}

/** Whether one instance serves all calls: it is neither REQUEST- nor TRANSIENT-scoped, and depends on nothing that is REQUEST-scoped. */
export const isShared = (wrapper: InstanceWrapper): boolean =>
  wrapper.isDependencyTreeStatic() && !wrapper.isTransient;

/**
 * An instance of a scoped provider for one call, with what it depends on.
 * @param request what `@Inject(REQUEST)` gives there; a ContextIdStrategy is asked with it. In a durable tree, which outlives
 *   the call, it is the strategy's payload instead, as in a route
 * @throws what a constructor throws
 */
export async function scopedInstance<T>(
  wrapper: InstanceWrapper,
  request: object,
): Promise<ScopedInstance<T>> {
  // Of its own module: others may provide the class, too.
  const moduleRef = wrapper.host!.getProviderByKey<ModuleRef>(ModuleRef).instance;
  const contextId = ContextIdFactory.getByRequest(request) as ContextId & {
    payload?: object;
  };
  if (!(REQUEST_CONTEXT_ID in request)) {
    // Whoever has the request finds what belongs to it.
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
