import { refuseUnknown, wholeNumber } from '../../options/option-values.js';
import {
  ensureConfig,
  readConfig,
  updateConfig,
  type ConfigChanges,
} from '../../database/job-config.sql.js';
import type { JobConfig } from '../../database/entities/index.js';
import { MAX_LIMIT } from './paging.js';
import type { BildadRuntime } from '../module/runtime.js';

const RANGES: Record<keyof ConfigChanges, [min: number, max: number]> = {
  defaultPageSize: [1, MAX_LIMIT],
  batchSize: [1, 100_000],
  leaseMs: [1_000, 86_400_000],
};

/** The engine's row, made anew if somebody deleted it. */
export async function currentConfig({
  store: { db, tables },
  settings: { name },
}: BildadRuntime): Promise<JobConfig> {
  const config = await readConfig(db, tables, name);
  if (config) return config;
  await ensureConfig(db, tables, name);
  return (await readConfig(db, tables, name))!;
}

/** @throws BildadConfigError naming the wrong change */
export async function changeConfig(
  bildad: BildadRuntime,
  changes: ConfigChanges,
): Promise<JobConfig> {
  refuseUnknown(changes, '', Object.keys(RANGES));
  for (const [field, [min, max]] of Object.entries(RANGES)) {
    const value = changes[field as keyof ConfigChanges];
    if (value !== undefined) wholeNumber(value, field, min, max);
  }
  const { name } = await currentConfig(bildad);
  const { db, tables } = bildad.store;
  return (await updateConfig(db, tables, name, changes))!;
}
