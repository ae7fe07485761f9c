import type {
  BildadModuleExtras,
  BildadModuleOptions,
  IsolationOptions,
  JobEventMap,
  JobRun,
} from 'nestjs-bildad';
import { actors, type Act } from '../fixtures/isolation-app.js';
import { bootApp, type TestApp } from './app.js';
import { createDatabase } from './database.js';

export const ISOLATED_MODULE = new URL(
  '../../dist/test/fixtures/isolation-app.js',
  import.meta.url,
);

export interface IsolatedApp extends TestApp {
  /** Enqueues the job and waits for its final run. */
  act(code: string, act: Act, note?: string): Promise<JobRun>;
  /** Resolves when the handler has been called. */
  begin(code: string, act: Act): Promise<JobEventMap['run.started'][0]>;
  /** Number of active sessions on the database that are not the app's own. */
  busySessions(): Promise<number>;
}

/** An app whose isolation hosts boot test/fixtures/isolation-app.ts. */
export async function bootIsolated(
  isolation: Partial<IsolationOptions> = {},
  options: BildadModuleOptions & BildadModuleExtras = {},
): Promise<IsolatedApp> {
  const database = await createDatabase();
  process.env['ISOLATED_DATABASE_URL'] = database.url;
  try {
    const bildad = await bootApp({
      database,
      providers: actors,
      options: {
        concurrency: 4,
        tickInterval: '50ms',
        ...options,
        isolation: {
          module: ISOLATED_MODULE,
          export: 'IsolatedModule',
          ...isolation,
        },
      },
    });
    return {
      ...bildad,
      act: async (code, act, note) => {
        const entry = await bildad.engine.enqueueJob(code, {
          act,
          ...(note && { note }),
        });
        return bildad.engine.waitForJob(entry.jobRunIdentifier, {
          timeout: '20s',
        });
      },
      begin: async (code, act) => {
        const started = bildad.next('run.started');
        await bildad.engine.enqueueJob(code, { act });
        return started;
      },
      busySessions: async () => {
        const [row] = await database.sql<{ busy: number }>(
          `SELECT count(*)::int AS busy FROM pg_stat_activity
           WHERE datname = current_database() AND application_name LIKE 'bildad#%' AND state <> 'idle'`,
        );
        return row!.busy;
      },
      close: async () => {
        await bildad.close();
        await database.drop();
      },
    };
  } catch (error) {
    await database.drop();
    throw error;
  }
}
