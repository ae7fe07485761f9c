import { integer, partial, type SchemaOf } from '../../options/reader.js';
import {
  ensureConfig,
  readConfig,
  updateConfig,
  type ConfigChanges,
} from '../../database/job-config.sql.js';
import type { JobConfig } from '../../database/entities/index.js';
import { MAX_LIMIT } from './paging.js';
import type { BildadRuntime } from '../module/runtime.js';

const readChanges = partial({
  defaultPageSize: integer(1, MAX_LIMIT),
  batchSize: integer(1, 100_000),
  leaseMs: integer(1_000, 86_400_000),
} satisfies SchemaOf<ConfigChanges>);

/** The engine's row, created again if it was deleted. */
export async function currentConfig({
  store: { db, tables },
  settings: { name },
}: BildadRuntime): Promise<JobConfig> {
  const config = await readConfig(db, tables, name);
  if (config) return config;
  await ensureConfig(db, tables, name);
  return (await readConfig(db, tables, name))!;
}

/** @throws BildadConfigError about the wrong change */
export async function changeConfig(
  bildad: BildadRuntime,
  changes: ConfigChanges,
): Promise<JobConfig> {
  const read = readChanges(changes, '', 'updateJobConfig');
  const { name } = await currentConfig(bildad);
  const { db, tables } = bildad.store;
  return (await updateConfig(db, tables, name, read))!;
}
