import { afterAll, beforeAll, expect } from 'vitest';
import { betweenFiles } from './between-files.js';

/** A spec that leaves a connection, timer, child process or thread behind fails. */
const WATCHED = ['TCPSocketWrap', 'Timeout', 'Immediate', 'ProcessWrap', 'Worker'];

const count = () => {
  const active = process.getActiveResourcesInfo();
  return Object.fromEntries(
    WATCHED.map((kind) => [kind, active.filter((name) => name === kind).length]),
  );
};

let before: Record<string, number>;

beforeAll(() => {
  for (const forget of betweenFiles) forget();
  before = count();
});

afterAll(async () => {
  // A socket that was ended takes a few turns of the event loop to go, a killed process until the system has buried it.
  const giveUpAt = performance.now() + 10_000;
  while (leaked().length > 0 && performance.now() < giveUpAt)
    await new Promise((resolve) => setImmediate(resolve));
  expect(leaked(), 'left behind').toEqual([]);
});

function leaked(): string[] {
  const now = count();
  return WATCHED.filter((kind) => now[kind]! > before[kind]!).map(
    (kind) => `${now[kind]! - before[kind]!} x ${kind}`,
  );
}
