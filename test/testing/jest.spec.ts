import { execFile } from 'node:child_process';
import { writeFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, inject, it } from 'vitest';

// jest runs the example of docs/testing.md as ES modules, and its matchers report failures.

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const BIN = createRequire(import.meta.url).resolve('jest/bin/jest');
const CONFIG = 'test/testing/example/jest.config.json';

function jest(...args: string[]) {
  return promisify(execFile)(
    process.execPath,
    ['--experimental-vm-modules', BIN, '-c', CONFIG, '-i', '--json', ...args],
    {
      cwd: ROOT,
      env: { ...process.env, DATABASE_URL: inject('databaseUrl') },
      timeout: 60_000,
    },
  ).then(
    ({ stdout }) => stdout,
    ({ stdout, stderr }: { stdout: string; stderr: string }) => stdout || stderr,
  );
}

it('jest runs the example', async () => {
  expect(JSON.parse(await jest())).toMatchObject({
    success: true,
    numPassedTests: 3,
    openHandles: [],
  });
}, 60_000);

it('a failing matcher lists the jobs that were enqueued', async () => {
  const path = join(ROOT, 'dist/test/testing/example/fails.jest.js');
  await writeFile(
    path,
    `import 'nestjs-bildad/testing/jest';
     const jobs = [{ code: 'OTHER', context: { a: 1 }, status: 'AVAILABLE', runAt: new Date(0) }];
     // The registry that enqueued() attaches.
     jobs[Symbol.for('nestjs-bildad:testing:known')] = { codes: new Set(['OTHER', 'MAIL']), engines: [] };
     it('finds', () => expect(jobs).toHaveEnqueued('OTHER', { a: expect.any(Number) }));
     it('fails', () => expect(jobs).toHaveEnqueued('MAIL', { a: 1 }));`,
  );
  try {
    const { testResults } = JSON.parse(await jest('fails')) as {
      testResults: {
        assertionResults: { status: string }[];
        message: string;
      }[];
    };
    expect(testResults[0]!.assertionResults.map(({ status }) => status)).toEqual([
      'passed',
      'failed',
    ]);
    expect(testResults[0]!.message).toMatch(
      /asked for at least one of: MAIL \{"a": 1\}[^]*OTHER \{"a": 1\} \(AVAILABLE, runAt 1970/,
    );
  } finally {
    await rm(path);
  }
}, 60_000);
