import type { ModulesContainer } from '@nestjs/core';
import {
  BildadConfigError,
  bildadEntities,
  JobEngineService,
  JobEvents,
  JobsService,
  type BildadEntities,
  type BildadModuleOptions,
  JobRunStatus,
} from 'nestjs-bildad';
import type { DataSource } from 'typeorm';
import { SwitchedPools } from './transaction/switched-pools.js';

/** Tables that hold jobs. The other tables of the schema describe the engine and its nodes, or belong to the app. */
export const TABLES_OF_JOBS: readonly string[] = [
  'job_queue_entries',
  'job_runs',
  'job_keys',
  'job_run_notes',
];

/** An engine of the app under test. */
export interface TestEngine {
  name: string;
  schema: string;
  dataSource: DataSource;
  pools: SwitchedPools;
  entities: BildadEntities;
  service: JobEngineService;
  jobs: JobsService;
  events: JobEvents;
  currentManager: BildadModuleOptions['currentManager'];
}

/** The facts of an engine before its services are created. */
export type MadeEngine = Pick<
  TestEngine,
  'name' | 'schema' | 'dataSource' | 'events' | 'currentManager'
>;

/** The created engines with their services, which are found through the module that provides their events. */
export function testEngines(made: readonly MadeEngine[], modules: ModulesContainer): TestEngine[] {
  const found: TestEngine[] = [];
  for (const { providers } of modules.values()) {
    const instance = <T>(token: new (...args: any[]) => T) =>
      providers.get(token)?.instance as T | undefined;
    const events = instance(JobEvents);
    const one = made.find((engine) => engine.events === events);
    const service = instance(JobEngineService);
    const jobs = instance(JobsService);
    if (!one || !events || !service || !jobs) continue;
    found.push({
      ...one,
      service,
      jobs,
      pools: SwitchedPools.of(one.dataSource),
      entities: bildadEntities(one.schema),
    });
  }
  if (found.length === 0)
    throw new BildadConfigError(
      'imports',
      'must have an initialized module that imports BildadModule, beside BildadTestingModule: await moduleRef.init()',
      { where: 'BildadTestingModule' },
    );
  return found;
}

/** Groups the engines that share tables. No group is empty. */
export function bySchema(engines: readonly TestEngine[]): TestEngine[][] {
  const groups: TestEngine[][] = [];
  for (const engine of engines) {
    const group = groups.find(
      ([one]) => one!.dataSource === engine.dataSource && one!.schema === engine.schema,
    );
    if (group) group.push(engine);
    else groups.push([engine]);
  }
  return groups;
}

/** Describes the runs that run, or are RUNNING in the database. */
export async function leaksOf(engines: readonly TestEngine[]): Promise<string[]> {
  const all = await Promise.all(bySchema(engines).map(running));
  return all
    .flat()
    .map(
      ({ run, code, engine }) =>
        `${code} ${run.jobRunIdentifier} is RUNNING${engine ? '' : ', and no process of it is here'}`,
    );
}

/** Stops the running jobs of these engines. @returns their descriptions */
export async function stopRunning(engines: readonly TestEngine[]): Promise<string[]> {
  const leaks = await leaksOf(engines);
  for (const group of bySchema(engines))
    for (const { run, engine } of await running(group)) {
      const process = engine?.service.findJobProcess(run);
      if (process) await engine!.service.tryToKillProcess(process);
    }
  return leaks;
}

/** The RUNNING runs of engines that share tables, each with the engine that has its process. */
async function running(group: readonly TestEngine[]) {
  const { dataSource, entities } = group[0]!;
  const runs = await dataSource
    .getRepository(entities.JobRun)
    .findBy({ status: JobRunStatus.RUNNING });
  if (runs.length === 0) return [];
  const templates = await dataSource.getRepository(entities.JobTemplate).find();
  return runs.map((run) => ({
    run,
    code: templates.find(({ id }) => id === run.jobTemplateId)?.code ?? '',
    engine: group.find(({ service }) => service.findJobProcess(run)),
  }));
}
