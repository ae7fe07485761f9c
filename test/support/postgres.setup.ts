import { startTestServer } from 'nestjs-bildad/testing';
import type { TestProject } from 'vitest/node';

declare module 'vitest' {
  interface ProvidedContext {
    databaseUrl: string;
    /** Name of the template database that has the tables. */
    databaseTemplate: string;
  }
}

/**
 * One server for all specs: the server of DATABASE_URL, or an embedded one. Each spec creates
 * its own databases.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await startTestServer();
  project.provide('databaseUrl', server.url);
  project.provide('databaseTemplate', process.env['BILDAD_TEST_TEMPLATE']!);
  return () => server.stop();
}
