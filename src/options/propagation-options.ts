import { BildadConfigError } from '../job/errors.js';
import type { JsonValue } from '../job/json.js';
import { flag, text } from './option-values.js';

/**
 * Carries a part of what an enqueue happens in to the runs of its job: a tenant, a user, a correlation id.
 * @typeParam V what travels: plain JSON, of at most 8,192 bytes
 */
export interface JobCarrier<V = any> {
  /**
   * Called once, synchronously, for each call that enqueues: one of `enqueueJobs` for all of its jobs. What it throws, or
   * returns that is no JSON, refuses the call with a CarriedContextError: a job is not enqueued without its tenant.
   * @returns undefined: nothing travels
   */
  capture: () => V | undefined;
  /**
   * Called around all that a handler does in a run, in its thread or process too. It has to call `next`, and to return or
   * await what that returns, which never rejects. What it throws fails the run.
   * @param value undefined where the job carries nothing under this name: what is set then must not stay
   */
  restore: (value: V | undefined, next: () => Promise<void>) => unknown;
}

/** What stands around handlers. */
export interface SurroundingsOptions {
  /**
   * What travels with each job from where it is enqueued to where it runs, by name. Default: nothing. It is stored with the
   * job, encrypted where its context is; handlers and entities do not show it.
   */
  carry?: Record<string, JobCarrier>;
  /**
   * Whether guards, interceptors, pipes and exception filters of the whole app (`APP_GUARD`, `useGlobalGuards`, ...) stand
   * around handlers, too. Those of a handler's own class and method always do. Default `false`: they are made for routes.
   */
  globalEnhancers?: boolean;
}

export interface NamedCarrier extends JobCarrier<JsonValue> {
  name: string;
}

export interface SurroundingsSettings {
  /** The first is the outermost. */
  carry: readonly NamedCarrier[];
  globalEnhancers: boolean;
}

export const SURROUNDINGS_NAMES: readonly (keyof SurroundingsOptions)[] = [
  'carry',
  'globalEnhancers',
];
/** What the engine carries by itself. */
const RESERVED = ['trace'];
const LONGEST_NAME = 50;

/** @throws BildadConfigError */
export function readSurroundings({
  carry = {},
  globalEnhancers = false,
}: SurroundingsOptions): SurroundingsSettings {
  return {
    carry: readCarriers(carry),
    globalEnhancers: flag(globalEnhancers, 'globalEnhancers'),
  };
}

function readCarriers(carry: Record<string, JobCarrier>): NamedCarrier[] {
  if (typeof carry !== 'object' || carry === null || Array.isArray(carry))
    throw new BildadConfigError('carry', 'an object of carriers by name', carry as unknown);
  return Object.entries(carry).map(([name, carrier]) => {
    text(name, 'carry: a name', LONGEST_NAME);
    const field = `carry.${name}`;
    if (RESERVED.includes(name)) throw new BildadConfigError(field, 'another name', name);
    const given = carrier as Partial<JobCarrier> | null;
    for (const part of ['capture', 'restore'] as const)
      if (typeof given?.[part] !== 'function')
        throw new BildadConfigError(`${field}.${part}`, 'a function', given?.[part]);
    // It may be an instance of a class.
    return {
      name,
      capture: () => carrier.capture() as JsonValue | undefined,
      restore: (value, next) => carrier.restore(value, next),
    };
  });
}
