import { BildadConfigError } from '../../job/errors.js';
import type { JobEventMap } from '../../job/events.js';
import type { JobHandlerClass } from '../../job/job-handler.js';

export interface OnJobEventOptions {
  /**
   * Only events of this handler's jobs, or of the template with this code. For events of jobs.
   * Default: all jobs.
   */
  code?: string | JobHandlerClass;
  /** Only events of the engine with this name. Default: all engines of the process. */
  engine?: string;
  /**
   * `'here'`, the default: events of this process. `'cluster'`: also events of other nodes of the
   * engine, delivered at most once; for events that are plain data.
   */
  from?: 'here' | 'cluster';
}

export interface DeclaredListener {
  event: keyof JobEventMap;
  options: OnJobEventOptions;
}

const ON_JOB_EVENT = Symbol('nestjs-bildad:on-job-event');

/**
 * Calls a method of a provider or controller for each event of this name, with its payload. The
 * call follows soon after the event, and its result or error does not affect the job: see
 * docs/events.md. A method may have several of these decorators. A method that a subclass overrides
 * must be decorated again.
 */
export function OnJobEvent<E extends keyof JobEventMap>(event: E, options: OnJobEventOptions = {}) {
  return <M extends (payload: JobEventMap[E][0]) => unknown>(
    target: object,
    name: string | symbol,
    descriptor: TypedPropertyDescriptor<M>,
  ): void => {
    const method: unknown = descriptor?.value;
    if (typeof target === 'function' || typeof method !== 'function')
      throw new BildadConfigError(
        `@OnJobEvent('${event}') on ${String(name)}`,
        `must decorate a method of an instance, not ${typeof target === 'function' ? 'a static member' : typeof method}`,
      );
    const others = declaredListeners(method);
    const all = [{ event, options }, ...others];
    Reflect.defineMetadata(ON_JOB_EVENT, all, method);
  };
}

export function declaredListeners(method: unknown): DeclaredListener[] {
  return typeof method === 'function'
    ? ((Reflect.getOwnMetadata(ON_JOB_EVENT, method) as DeclaredListener[] | undefined) ?? [])
    : [];
}
