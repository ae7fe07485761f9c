import { readFile } from 'node:fs/promises';
import { OUTCOME_RULES } from 'nestjs-bildad';
import { expect, it } from 'vitest';

it('docs/state-machine.md lists the current verdict rules', async () => {
  const text = await readFile(new URL('../../docs/state-machine.md', import.meta.url), 'utf8');
  const documented = text
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => {
      const [outcome, , result, reason, entry, backoff, counts] = line
        .slice(1, -1)
        .split('|')
        .map((cell) => cell.trim().replaceAll('`', ''));
      return [
        outcome,
        {
          result,
          reason,
          entry,
          backoff: backoff === 'yes',
          counts: counts === 'yes',
        },
      ];
    });
  const fromError = {
    completed: '-',
    failed: "the error's text",
    failedForGood: "the error's text",
    hostDied: "the error's text",
    invalidContext: 'the violations',
  };
  const real = Object.entries(OUTCOME_RULES).map(([outcome, rule]) => [
    outcome,
    {
      ...rule,
      reason: rule.reason ?? fromError[outcome as keyof typeof fromError],
    },
  ]);
  expect(Object.fromEntries(documented)).toEqual(Object.fromEntries(real));
});
