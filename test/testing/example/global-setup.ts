import { startTestServer, type TestServer } from 'nestjs-bildad/testing';

let server: TestServer;

// vitest calls these two by name, jest the default of globalSetup and of globalTeardown.
export async function setup(): Promise<void> {
  server = await startTestServer();
}
export async function teardown(): Promise<void> {
  await server.stop();
}
export default setup;
