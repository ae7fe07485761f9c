import { BildadConfigError, JobTemplateNotFoundError } from 'nestjs-bildad';
import type { BildadTesting } from './bildad-testing.js';
import type { EnqueuedJob } from './enqueued.js';
import type { EnqueuedLike } from './matchers.js';

const STATES: readonly unknown[] = ['AVAILABLE', 'RUNNING', 'QUARANTINED', 'DONE'];

/** What can be enqueued, and where. */
export interface Known {
  codes: Set<string>;
  engines: string[];
}

/** By the registry's symbol, as a test runner may have made two of this file. */
const KNOWN = Symbol.for('nestjs-bildad:testing:known');

/** The list as `expect` takes it: what can never be in it is known, also when it is empty. Nobody else sees that. */
export const withKnown = (jobs: EnqueuedJob[], known: Known): EnqueuedJob[] =>
  Object.defineProperty(jobs, KNOWN, { value: known });

/** The jobs that `expect` was given. @throws JobTemplateNotFoundError, BildadConfigError where what is asked for can never be: `not` would always pass */
export async function receivedJobs(
  received: unknown,
  code: string,
  { status, engine }: EnqueuedLike,
): Promise<EnqueuedJob[]> {
  if (typeof status === 'string' && !STATES.includes(status))
    throw new BildadConfigError('status', `must be one of ${STATES.join(', ')}`, {
      got: status,
      where: 'toHaveEnqueued',
    });
  // Not by its class, of which a test runner may have made two.
  const { enqueued } = (received ?? {}) as Partial<BildadTesting>;
  const jobs = typeof enqueued === 'function' ? await enqueued.call(received) : received;
  const known = (jobs as { [KNOWN]?: Known } | null | undefined)?.[KNOWN];
  if (!known)
    throw new BildadConfigError(
      'expect(...)',
      'must get a BildadTesting, or the list that its enqueued() returns',
      { got: received },
    );
  if (!known.codes.has(code)) throw new JobTemplateNotFoundError(code);
  if (typeof engine === 'string' && !known.engines.includes(engine))
    throw new BildadConfigError('engine', `must be one of ${known.engines.join(', ')}`, {
      got: engine,
      where: 'toHaveEnqueued',
    });
  return jobs as EnqueuedJob[];
}

/** What a context is like when it is stored: Dates are texts, what is undefined is not there. Matchers stay. */
export function asStored(expected: unknown, stored: unknown): unknown {
  const at = (name: string | number): unknown =>
    (stored as Record<string | number, unknown> | null | undefined)?.[name];
  // By their tags: a test runner may have Dates of its own.
  const tag = Object.prototype.toString.call(expected);
  if (tag === '[object Date]') return (expected as Date).toJSON();
  if (Array.isArray(expected)) return expected.map((one, index) => asStored(one, at(index)));
  if (tag !== '[object Object]') return expected;
  const given = expected as Record<string, unknown>;
  if (typeof given['asymmetricMatch'] === 'function') return expected;
  return Object.fromEntries(
    Object.entries(given)
      .filter(([name, value]) => value !== undefined || at(name) !== undefined)
      .map(([name, value]) => [name, asStored(value, at(name))]),
  );
}
