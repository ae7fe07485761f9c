import { BildadConfigError } from '../../job/errors.js';
import type { JobEventMap } from '../../job/events.js';
import type { JobHandlerClass } from '../../job/job-handler.js';

export interface OnJobEventOptions {
  /** Events of this handler's jobs alone, or of the template with this code; of those that are of a job. Default: of all. */
  code?: string | JobHandlerClass;
  /** The engine (`BildadModule.forRoot({ name })`) whose events they are. Default: every engine of the process. */
  engine?: string;
  /**
   * `'here'`, the default: what happens in this process. `'cluster'`: also what other nodes of the engine tell, at most once;
   * for events that are plain data.
   */
  from?: 'here' | 'cluster';
}

export interface DeclaredListener {
  event: keyof JobEventMap;
  options: OnJobEventOptions;
}

const ON_JOB_EVENT = Symbol('nestjs-bildad:on-job-event');

/**
 * Has a method of a provider or controller called for each event of this name, with its payload. It is called soon
 * after the fact, and what it does, throws or rejects with is nothing to the job: see docs/events.md. More than one may stand on a
 * method. Of a subclass that overrides it, the method has to be decorated again.
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
