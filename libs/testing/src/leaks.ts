import { JobRunStatus } from 'nestjs-bildad';
import type { TestEngine } from './engines.js';

/** Runs that are under way, or say so. */
export async function leaksOf(engine: TestEngine): Promise<string[]> {
  return (await running(engine)).map(
    ({ run, code }) =>
      `${code} ${run.jobRunIdentifier} is RUNNING${engine.service.findJobProcess(run) ? '' : ', and no process of it is here'}`,
  );
}

/** Stops what runs here. @returns what did */
export async function stopRunning(
  engines: readonly TestEngine[],
): Promise<string[]> {
  const all: string[] = [];
  for (const engine of engines) {
    all.push(...(await leaksOf(engine)));
    for (const { run } of await running(engine)) {
      const process = engine.service.findJobProcess(run);
      if (process) await engine.service.tryToKillProcess(process);
    }
  }
  return all;
}

async function running({ dataSource, entities }: TestEngine) {
  const runs = await dataSource
    .getRepository(entities.JobRun)
    .findBy({ status: JobRunStatus.RUNNING });
  if (runs.length === 0) return [];
  const templates = await dataSource.getRepository(entities.JobTemplate).find();
  return runs.map((run) => ({
    run,
    code: templates.find(({ id }) => id === run.jobTemplateId)?.code ?? '',
  }));
}
