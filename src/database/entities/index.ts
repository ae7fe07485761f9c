import { Entity, type DataSource } from 'typeorm';
import { DEFAULT_SCHEMA } from '../../options/settings.js';
import { JobConfig } from './job-config.entity.js';
import { JobNode } from './job-node.entity.js';
import { JobQueueEntry } from './job-queue-entry.entity.js';
import { JobRun } from './job-run.entity.js';
import { JobTemplate } from './job-template.entity.js';

export { JobConfig, JobNode, JobQueueEntry, JobRun, JobTemplate };

export interface BildadEntities {
  JobConfig: typeof JobConfig;
  JobTemplate: typeof JobTemplate;
  JobQueueEntry: typeof JobQueueEntry;
  JobRun: typeof JobRun;
  JobNode: typeof JobNode;
}

const bySchema = new Map<string, BildadEntities>([
  [DEFAULT_SCHEMA, { JobConfig, JobTemplate, JobQueueEntry, JobRun, JobNode }],
]);

/**
 * The entities of one schema. TypeORM ties a class to one table, so another schema has subclasses with
 * the same names. Its rows are `instanceof` the exported classes too.
 */
export function bildadEntities(schema = DEFAULT_SCHEMA): BildadEntities {
  let entities = bySchema.get(schema);
  if (!entities) {
    entities = {
      JobConfig: inSchema(schema, 'job_configs', JobConfig),
      JobTemplate: inSchema(schema, 'job_templates', JobTemplate),
      JobQueueEntry: inSchema(schema, 'job_queue_entries', JobQueueEntry),
      JobRun: inSchema(schema, 'job_runs', JobRun),
      JobNode: inSchema(schema, 'job_nodes', JobNode),
    };
    bySchema.set(schema, entities);
  }
  return entities;
}

/** For hosts that list their entities themselves. */
export const BILDAD_ENTITIES = Object.values(bildadEntities());

function inSchema<T extends new () => object>(schema: string, name: string, entity: T): T {
  const sub = class extends (entity as new () => object) {};
  Object.defineProperty(sub, 'name', { value: entity.name });
  Entity({ name, schema, synchronize: false })(sub);
  return sub as unknown as T;
}

/**
 * Makes `dataSource.getRepository(JobRun)` work with tables in another schema than the default one. With
 * two schemas TypeORM cannot know which one is meant: use `bildadEntities(schema)` there.
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
