import { fileURLToPath } from 'node:url';
import { it } from 'vitest';
import { runSample } from './sample.js';

const refused: [string, string[], Record<string, string>, string][] = [
  ['an unknown option', ['--bogus'], {}, '--bogus'],
  ['an argument', ['here'], {}, 'here'],
  ['a missing folder', ['--folder', '/no/such'], {}, '"/no/such" does not exist'],
  [
    'a folder that is not a directory',
    ['--folder', fileURLToPath(import.meta.url)],
    {},
    'is not a folder',
  ],
  ['a wrong port', ['--once'], { PORT: '70000' }, 'PORT: expected'],
];

it.concurrent.for(refused)('the sample rejects %s', async ([, args, env, message], { expect }) => {
  const { code, stdout, stderr } = await runSample(args, env);
  expect(stderr).toContain(message);
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
});

it.concurrent('the sample prints its usage', async ({ expect }) => {
  const { code, stdout } = await runSample(['--help']);
  expect(stdout).toContain('--folder PATH');
  expect(code).toBe(0);
});
