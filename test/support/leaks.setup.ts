import { afterAll, beforeAll, expect } from 'vitest';
import { fileResets } from './file-resets.js';

/** A spec fails if it leaves a connection, timer, child process or thread behind. */
const WATCHED = ['TCPSocketWrap', 'Timeout', 'Immediate', 'ProcessWrap', 'Worker'];

const count = () => {
  const active = process.getActiveResourcesInfo();
  return Object.fromEntries(
    WATCHED.map((kind) => [kind, active.filter((name) => name === kind).length]),
  );
};

let before: Record<string, number>;

beforeAll(() => {
  for (const reset of fileResets) reset();
  before = count();
});

afterAll(async () => {
  // A closed socket needs a few turns of the event loop to go away. A killed process needs a moment
  // until its parent has reaped it.
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
