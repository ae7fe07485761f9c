import type { DataSource } from 'typeorm';
import { BILDAD_ENTITIES } from './index.js';

/**
 * Lets `dataSource.getRepository(JobRun)` work with tables in another schema than the default one. With
 * those of two schemas TypeORM could not know which are meant: there `bildadEntities(schema)` says so.
 */
export function nameExportedEntities(dataSource: DataSource): void {
  for (const exported of BILDAD_ENTITIES) {
    const [only, another] = dataSource.entityMetadatas.filter(
      ({ target }) =>
        typeof target === 'function' &&
        (target === exported || target.prototype instanceof exported),
    );
    if (only && !another) dataSource.entityMetadatasMap.set(exported, only);
  }
}
