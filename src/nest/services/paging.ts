import type { FindManyOptions, Repository } from 'typeorm';
import { integer } from '../../options/reader.js';

export interface Page {
  /** From 0. Default 0. */
  page?: number;
  /** At most 1,000. Default: the config's `defaultPageSize`. */
  limit?: number;
}

export const MAX_LIMIT = 1_000;
const readPage = integer(0, Math.floor(Number.MAX_SAFE_INTEGER / MAX_LIMIT));
const readLimit = integer(1, MAX_LIMIT);

/** One page of a list. @throws BildadConfigError naming a wrong `page` or `limit` */
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
