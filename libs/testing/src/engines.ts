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

/** The others of the schema tell of the engine and its nodes, which live on in real time, or are the app's own. */
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

/** What is known of an engine before its facades are made. */
export type MadeEngine = Pick<
  TestEngine,
  'name' | 'schema' | 'dataSource' | 'events' | 'currentManager'
>;

/** The engines that were made, each with its facades: those of the module that has its events. */
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

/** Those that have their tables in common together. Never an empty list among them. */
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

/** Runs that are under way, or say so. */
export async function leaksOf(engines: readonly TestEngine[]): Promise<string[]> {
  const all = await Promise.all(bySchema(engines).map(running));
  return all
    .flat()
    .map(
      ({ run, code, engine }) =>
        `${code} ${run.jobRunIdentifier} is RUNNING${engine ? '' : ', and no process of it is here'}`,
    );
}

/** Stops what runs here. @returns what did */
export async function stopRunning(engines: readonly TestEngine[]): Promise<string[]> {
  const leaks = await leaksOf(engines);
  for (const group of bySchema(engines))
    for (const { run, engine } of await running(group)) {
      const process = engine?.service.findJobProcess(run);
      if (process) await engine!.service.tryToKillProcess(process);
    }
  return leaks;
}

/** Of engines that share their tables, each with the one that has its process. */
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
