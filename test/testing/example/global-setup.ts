import { startTestServer, type TestServer } from 'nestjs-bildad/testing';

let server: TestServer;

// vitest calls these functions by name; jest calls the default exports of its setup files.
export async function setup(): Promise<void> {
  server = await startTestServer();
}
export async function teardown(): Promise<void> {
  await server.stop();
}
export default setup;
