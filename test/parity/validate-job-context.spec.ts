import { IsEmail, IsInt, ValidateNested } from 'class-validator';
import { Type } from 'class-transformer';
import { InvalidJobContextError, InvalidJobSchemaError, type JsonSchema } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';

// validate_job_context: checks a context against a schema; an unusable schema is an error of its own. No deviation;
// a class with class-validator decorators is a schema too.

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
])('accepts what %s allows', async (_what, schema) => {
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
])('tells all violations of %s, and where', async (_what, schema) => {
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

it('tells what is missing and what is too much', async () => {
  await expect(bildad.engine.validateJobContext(SCHEMA, { bcc: 1 })).rejects.toMatchObject({
    violations: [{ path: 'to' }, { path: 'bcc' }],
  });
});

it.each([
  ['a type that is none', { type: 'objekt' }],
  ['a reference to nowhere', { $ref: '#/definitions/nothing' }],
  ['a pattern that is none', { type: 'string', pattern: '(' }],
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
  'refuses what JSON cannot carry, whatever the schema: %s',
  async (context) => {
    await expect(bildad.engine.validateJobContext({}, context)).rejects.toBeInstanceOf(
      InvalidJobContextError,
    );
  },
);
