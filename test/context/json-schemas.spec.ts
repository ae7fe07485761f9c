import { BildadJob, InvalidJobSchemaError, type JsonSchema } from 'nestjs-bildad';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { refusal } from '../support/capture.js';

// A JSON Schema as context: draft 7 unless the schema names another dialect.

const invoice = {
  type: 'object',
  required: ['to', 'lines'],
  additionalProperties: false,
  properties: {
    to: { type: 'string', format: 'email' },
    id: { type: 'string', format: 'uuid' },
    at: { type: 'string', format: 'date-time' },
    link: { type: 'string', format: 'uri' },
    lines: {
      type: 'array',
      minItems: 1,
      items: {
        type: 'object',
        required: ['price'],
        properties: {
          price: { type: 'number', exclusiveMinimum: 0 },
          'odd/name~': { type: 'integer' },
        },
      },
    },
  },
} satisfies JsonSchema;

@BildadJob({ code: 'DRAFT_7', context: invoice })
class Draft7Job {
  runJob() {}
}

@BildadJob({
  code: 'DRAFT_7_NAMED',
  context: { $schema: 'http://json-schema.org/draft-07/schema#', ...invoice },
})
class NamedDraft7Job {
  runJob() {}
}

@BildadJob({
  code: 'DRAFT_2020',
  context: {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    type: 'object',
    properties: {
      pair: {
        type: 'array',
        prefixItems: [{ type: 'string' }, { $ref: '#/$defs/positive' }],
        items: false,
      },
    },
    dependentRequired: { pair: ['unit'] },
    unevaluatedProperties: { type: 'string' },
    $defs: { positive: { type: 'number', minimum: 0 } },
  },
})
class Draft2020Job {
  runJob() {}
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [Draft7Job, NamedDraft7Job, Draft2020Job],
  });
});
afterAll(() => bildad.close());

const lines = [{ price: 1 }];

describe.each([[Draft7Job], [NamedDraft7Job]])('draft 7, %o', (job) => {
  it('a valid context is stored without additions', async () => {
    const context = {
      to: 'ada@example.com',
      id: '01890a5d-ac96-774b-bcce-b302099a8057',
      at: '2030-01-02T03:04:05Z',
      link: 'https://example.com/?a=1',
      lines: [{ price: 0.5, 'odd/name~': 3, note: 'free' }],
    };
    const entry = await bildad.engine.enqueueJob(job, context);
    expect(entry.jobContext).toEqual(context);
  });

  it.each<[context: object, path: string, why: RegExp]>([
    [{ to: 'ada', lines }, 'to', /email/],
    [{ lines }, 'to', /required/],
    [{ to: 'a@b.co', id: '5', lines }, 'id', /uuid/],
    [{ to: 'a@b.co', at: 'noon', lines }, 'at', /date-time/],
    [{ to: 'a@b.co', link: 'here', lines }, 'link', /uri/],
    [{ to: 'a@b.co', lines, cc: 'x' }, 'cc', /additional/],
    [{ to: 'a@b.co', lines: [] }, 'lines', /1/],
    [{ to: 'a@b.co', lines: [{ price: 1 }, {}] }, 'lines[1].price', /required/],
    [{ to: 'a@b.co', lines: [{ price: 0 }] }, 'lines[0].price', /> 0/],
    [{ to: 'a@b.co', lines: [{ price: 1, 'odd/name~': 1.5 }] }, 'lines[0].odd/name~', /integer/],
    [[], '', /object/],
  ])('%j is rejected', async (context, path, why) => {
    const found = (await refusal(bildad, context, job)).find(
      (violation) => violation.path === path,
    );
    expect(found?.message).toMatch(why);
  });

  it('all violations are reported', async () => {
    const paths = (await refusal(bildad, { lines: [{}], cc: 1 }, job)).map(({ path }) => path);
    expect(new Set(paths)).toEqual(new Set(['to', 'cc', 'lines[0].price']));
  });
});

describe('draft 2020-12', () => {
  it('a valid context is stored', async () => {
    const context = { pair: ['a', 1], unit: 'kg' };
    const entry = await bildad.engine.enqueueJob(Draft2020Job, context);
    expect(entry.jobContext).toEqual(context);
  });

  it.each<[context: object, path: string]>([
    [{ pair: ['a', -1], unit: 'kg' }, 'pair[1]'],
    [{ pair: ['a', 1, 2], unit: 'kg' }, 'pair'],
    [{ pair: ['a', 1] }, 'unit'],
    [{ extra: 5 }, 'extra'],
  ])('%j is rejected', async (context, path) => {
    const paths = (await refusal(bildad, context, Draft2020Job)).map((violation) => violation.path);
    expect(paths).toContain(path);
  });
});

describe('a template that an operator created', () => {
  it('its schema is enforced for an enqueue by code', async () => {
    await bildad.jobs.createJobTemplate({
      code: 'BY_HAND',
      jobContextSchema: { required: ['to'] },
    });
    expect(await refusal(bildad, {}, 'BY_HAND')).toMatchObject([{ path: 'to' }]);
    const entry = await bildad.engine.enqueueJob('BY_HAND', { to: 1 });
    expect(entry.jobContext).toEqual({ to: 1 });
  });

  it('an unusable schema is rejected', async () => {
    await expect(
      bildad.jobs.createJobTemplate({
        code: 'BROKEN',
        jobContextSchema: { type: 'strnig' },
      }),
    ).rejects.toBeInstanceOf(InvalidJobSchemaError);
  });

  it('a schema broken with SQL rejects the enqueue with an error that names the template', async () => {
    await bildad.jobs.createJobTemplate({ code: 'EDITED' });
    await bildad.sql(
      `UPDATE bildad.job_templates SET job_context_schema = '{"type": "strnig"}' WHERE code = 'EDITED'`,
    );
    await expect(bildad.engine.enqueueJob('EDITED', {})).rejects.toMatchObject({
      constructor: InvalidJobSchemaError,
      owner: 'EDITED',
    });
  });
});
