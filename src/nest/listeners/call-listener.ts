import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';
import type { JobEventMap } from '../../job/events.js';
import { isShared, scopedInstance } from '../pipeline/instances.js';
import type { Pipelines } from '../pipeline/pipeline.js';

/** What `getType()` of an ExecutionContext says where it is a listener's; its one argument is the payload. */
export const EVENT_CONTEXT_TYPE = 'bildad:event';

/** What `@Inject(REQUEST)` gives in a REQUEST-scoped listener, and in what it depends on. */
export interface JobEventRequest<E extends keyof JobEventMap = keyof JobEventMap> {
  event: E;
  payload: JobEventMap[E][0];
}

export interface ListenerMethod {
  event: keyof JobEventMap;
  wrapper: InstanceWrapper;
  target: new (...args: never[]) => object;
  methodName: string;
}

type Call = (payload: unknown) => unknown;
type Methods = Record<string, Call>;

/** What calls a listener, with all that stands around it; one that is not shared has an instance for each event. */
export function listenerCall(
  pipelines: Pipelines,
  { event, wrapper, target, methodName }: ListenerMethod,
  globals: boolean,
): Call {
  const pipeline = pipelines.around(
    { wrapper, target, methodName, type: EVENT_CONTEXT_TYPE },
    globals,
  );
  if (!isShared(wrapper))
    return async (payload) => {
      const request = { event, payload };
      const { instance, contextId } = await scopedInstance<object>(wrapper, request);
      return pipeline
        ? pipeline.bind(instance, contextId)(payload)
        : (instance as Methods)[methodName]!(payload);
    };
  const instance = wrapper.instance as object;
  return pipeline?.bind(instance) ?? ((payload) => (instance as Methods)[methodName]!(payload));
}
