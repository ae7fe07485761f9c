import { JobRunStatus } from 'nestjs-bildad';
import { bySchema, type TestEngine } from './engines.js';

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
