import { IsEmail, IsInt, ValidateNested } from 'class-validator';
import { Type } from 'class-transformer';
import { InvalidJobContextError, InvalidJobSchemaError, type JsonSchema } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';

// validate_job_context: checks a context against a schema. An unusable schema has an error class of
// its own. A class with class-validator decorators is a schema too. No other deviation from
// upstream.

class Item {
  @IsInt() price!: number;
}

class Order {
  @IsEmail() to!: string;
  @ValidateNested({ each: true }) @Type(() => Item) items!: Item[];
}

class Undecorated {}

const SCHEMA: JsonSchema = {
  type: 'object',
  required: ['to'],
  properties: {
    to: { type: 'string', format: 'email' },
    items: { type: 'array', items: { $ref: '#/definitions/item' } },
  },
  additionalProperties: false,
  definitions: {
    item: { type: 'object', properties: { price: { type: 'integer' } } },
  },
};

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp();
});
afterAll(() => bildad.close());

it.each([
  ['a JSON Schema', SCHEMA],
  ['a class', Order],
])('%s accepts a valid context', async (_what, schema) => {
  await expect(
    bildad.engine.validateJobContext(schema, {
      to: 'a@b.org',
      items: [{ price: 1 }],
    }),
  ).resolves.toBeUndefined();
});

it.each([
  ['a JSON Schema', SCHEMA],
  ['a class', Order],
])('%s reports all violations and their paths', async (_what, schema) => {
  const refusal = bildad.engine
    .validateJobContext(schema, {
      to: 'nobody',
      items: [{ price: 1 }, { price: 1.5 }],
    })
    .catch((error: unknown) => error);
  expect(await refusal).toBeInstanceOf(InvalidJobContextError);
  const { violations } = (await refusal) as InvalidJobContextError;
  expect(violations.map(({ path }) => path)).toEqual(['to', 'items[1].price']);
  expect(violations.every(({ message }) => message.length > 0)).toBe(true);
});

it('the violations name missing and unexpected properties', async () => {
  await expect(bildad.engine.validateJobContext(SCHEMA, { bcc: 1 })).rejects.toMatchObject({
    violations: [{ path: 'to' }, { path: 'bcc' }],
  });
});

it.each([
  ['an unknown type', { type: 'objekt' }],
  ['a dangling reference', { $ref: '#/definitions/nothing' }],
  ['an invalid pattern', { type: 'string', pattern: '(' }],
  ['null', null],
  ['undefined', undefined],
  ['a text', 'object'],
  ['a list', []],
  ['a class without decorators', Undecorated],
])('an unusable schema is an error of its own: %s', async (_what, schema) => {
  const refusal = bildad.engine
    .validateJobContext(schema as JsonSchema, {})
    .catch((error: unknown) => error);
  expect(await refusal).toBeInstanceOf(InvalidJobSchemaError);
  expect(await refusal).not.toBeInstanceOf(InvalidJobContextError);
});

it.each([[undefined], [NaN], [1n], [new Map()], ['a\0b'], [() => 1]])(
  'a value that JSON cannot represent is rejected for every schema: %s',
  async (context) => {
    await expect(bildad.engine.validateJobContext({}, context)).rejects.toBeInstanceOf(
      InvalidJobContextError,
    );
  },
);
