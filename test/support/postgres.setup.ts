import { startTestServer } from 'nestjs-bildad/testing';
import type { TestProject } from 'vitest/node';

declare module 'vitest' {
  interface ProvidedContext {
    databaseUrl: string;
  }
}

/** One server for all specs: that of DATABASE_URL, else an embedded one. Each spec has a database of its own. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await startTestServer();
  project.provide('databaseUrl', server.url);
  return () => server.stop();
}
