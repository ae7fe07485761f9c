import { randomBytes } from 'node:crypto';
import { inspect } from 'node:util';
import { EncryptedValue } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { encryption } from '../fixtures/isolation-app.js';
import { bootIsolated, type IsolatedApp } from '../support/isolation-app.js';

// Jobs stay encrypted between a node and its isolated hosts. Each process has the keys from its own module.

let bildad: IsolatedApp;
beforeAll(async () => {
  process.env['ISOLATED_KEY'] = randomBytes(32).toString('base64');
  bildad = await bootIsolated({}, encryption());
  for (const template of await bildad.jobs.listJobTemplates())
    await bildad.jobs.updateJobTemplate(template, { encrypt: true });
});
afterAll(async () => {
  delete process.env['ISOLATED_KEY'];
  await bildad.close();
});

it.each(['THREAD', 'PROCESS'])(
  'an isolated job is encrypted between the node and its host: %s',
  async (code) => {
    const greeted = await bildad.act(code, 'greet', 'Nest');
    expect(greeted.jobContext).toBeInstanceOf(EncryptedValue);
    expect(greeted.output).toBe('hello Nest');
    const [listed] = await bildad.jobs.listJobRunsForIdentifier(greeted.jobRunIdentifier);
    expect(listed!.output).toBeInstanceOf(EncryptedValue);

    const failed = await bildad.act(code, 'fail');
    expect(failed).toMatchObject({
      reason: 'PaymentRefused: redacted, because the job is encrypted',
      error: { name: 'PaymentRefused', code: 'E_REFUSED' },
    });
    expect(inspect(failed, { depth: 9 })).not.toMatch(/no money|amount/);
    const snoozed = await bildad.act(code, 'snooze');
    expect(snoozed).toMatchObject({ output: 'woken', retry: 1 });
  },
);
