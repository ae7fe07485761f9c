import type { FindManyOptions, Repository } from 'typeorm';
import { BildadConfigError } from '../../job/errors.js';
import { jobRunIdentifier as readIdentifier } from '../../options/job-options.js';
import { integer } from '../../options/reader.js';

const LARGEST_ID = 2n ** 63n - 1n;

/** The id of a run, entry or template as PostgreSQL takes it. @throws BildadConfigError */
export function idOf(row: { id: string }, kind: string): string {
  const given: unknown = (row as { id?: unknown } | null | undefined)?.id;
  // A host may have bigints parsed as numbers.
  const id = Number.isSafeInteger(given) ? String(given) : given;
  if (typeof id !== 'string' || !/^\d{1,19}$/.test(id) || BigInt(id) > LARGEST_ID)
    throw new BildadConfigError(kind, `must be a ${kind}, or an object with the id of one`, {
      got: row,
    });
  return id;
}

/** @throws BildadConfigError */
export function identifier(jobRunIdentifier: string): string {
  return readIdentifier(jobRunIdentifier, 'jobRunIdentifier');
}

export interface Page {
  /** From 0. Default 0. */
  page?: number;
  /** At most 1,000. Default: the config's `defaultPageSize`. */
  limit?: number;
}

export const MAX_LIMIT = 1_000;
const readPage = integer(0, Math.floor(Number.MAX_SAFE_INTEGER / MAX_LIMIT));
const readLimit = integer(1, MAX_LIMIT);

/** One page of a list. @throws BildadConfigError about a wrong `page` or `limit` */
export async function listPage<T extends object>(
  repository: Repository<T>,
  { page = 0, limit }: Page,
  query: FindManyOptions<T>,
  defaultLimit: () => Promise<number>,
): Promise<T[]> {
  const number = readPage(page, 'page');
  const take = limit === undefined ? await defaultLimit() : readLimit(limit, 'limit');
  return repository.find({ ...query, take, skip: number * take });
}
