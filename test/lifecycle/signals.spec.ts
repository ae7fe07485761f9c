import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { createDatabase } from '../support/database.js';

// Without a listener for SIGTERM, a deploy ends the process while jobs run. One warning says so.

const run = promisify(execFile);
const script = fileURLToPath(new URL('../../dist/test/fixtures/signals.js', import.meta.url));
const LINE = /no listener for SIGTERM, .* call app\.enableShutdownHooks\(\)/;

it('only a process that runs jobs logs the warning', async () => {
  const database = await createDatabase();
  const warnings = async (listens: string, role: string, env: NodeJS.ProcessEnv = {}) => {
    const { stdout, stderr } = await run(process.execPath, [script, database.url, listens, role], {
      env: { ...process.env, NODE_ENV: 'production', ...env },
    });
    return (stdout + stderr).split('\n').filter((line) => LINE.test(line));
  };
  try {
    const [none, hooks, own, producer, test] = await Promise.all([
      warnings('none', 'worker'),
      warnings('hooks', 'worker'),
      warnings('own', 'worker'),
      warnings('none', 'producer'),
      warnings('none', 'worker', { NODE_ENV: 'test' }),
    ]);
    expect(none).toHaveLength(1);
    expect(none[0]).toMatch(/WARN/);
    expect({ hooks, own, producer, test }).toEqual({
      hooks: [],
      own: [],
      producer: [],
      test: [],
    });
  } finally {
    await database.drop();
  }
}, 60_000);
