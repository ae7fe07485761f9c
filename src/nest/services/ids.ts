import { BildadConfigError } from '../../job/errors.js';
import { jobRunIdentifier as readIdentifier } from '../../options/job-options.js';

const LARGEST = 2n ** 63n - 1n;

/** The id of a run, entry or template as PostgreSQL takes it. @throws BildadConfigError */
export function idOf(row: { id: string }, kind: string): string {
  const given: unknown = (row as { id?: unknown } | null | undefined)?.id;
  // A host may have bigints parsed as numbers.
  const id = Number.isSafeInteger(given) ? String(given) : given;
  if (typeof id !== 'string' || !/^\d{1,19}$/.test(id) || BigInt(id) > LARGEST)
    throw new BildadConfigError(kind, `must be a ${kind}, or an object with the id of one`, {
      got: row,
    });
  return id;
}

/** @throws BildadConfigError */
export function identifier(jobRunIdentifier: string): string {
  return readIdentifier(jobRunIdentifier, 'jobRunIdentifier');
}
