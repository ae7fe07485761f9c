/* eslint-disable no-useless-escape -- valid without the u flag, and not with it */
import 'reflect-metadata';
import * as cv from 'class-validator';
import { Transform, Type } from 'class-transformer';
import { describe, expect, it } from 'vitest';
import { contextContract } from '../../src/context/context-contract.js';
import { schemaCheck } from '../../src/context/json-schema.js';

// The schema derived from a class compiles, and rejects no context that the class accepts.

enum Numeric {
  One = 1,
  Two,
}
const customValidator = (accepts: (value: unknown) => boolean) =>
  cv.ValidateBy({ name: 'isMine', validator: { validate: accepts } });
const toDate = Type(() => Date);

const decorators: Record<string, PropertyDecorator[]> = {
  'an escape that the u flag rejects': [cv.Matches(/^\d{3}\-\d{4}$/)],
  'another escape': [cv.Matches(/^https?\:\/\//)],
  flags: [cv.Matches(/^[a-z]+$/i)],
  'a pattern with modifiers': [cv.Matches('^[a-z]+$' as never, 'i')],
  'no flags': [cv.Matches(/^[a-z]+$/)],
  'contains a parenthesis': [cv.Contains('(')],
  'contains a dot': [cv.Contains('.')],
  'does not contain a dot': [cv.NotContains('.')],
  'a custom validator': [customValidator(() => true)],
  'a custom validator of an array': [cv.IsArray(), customValidator(() => true)],
  'an optional custom validator': [cv.IsOptional(), customValidator(() => true)],
  IsInstance: [cv.IsInstance(Object)],
  'transformed to a number': [cv.IsInt(), Type(() => Number)],
  transformed: [cv.IsString(), Transform(({ value }) => String(value))],
  'an impossible length': [cv.IsOptional(), cv.MaxLength(-1)],
  'IsIn with null': [cv.IsIn(['a', null])],
  mixed: [cv.IsIn(['a', 1])],
  'not in mixed': [cv.IsNotIn(['a', 1, null])],
  'not in objects': [cv.IsNotIn([{}])],
  IsIn: [cv.IsIn(['a', 'b'])],
  'not empty number': [cv.IsNotEmpty(), cv.IsInt()],
  'not empty': [cv.IsNotEmpty()],
  empty: [cv.IsEmpty()],
  'numeric enum': [cv.IsEnum(Numeric)],
  'text enum': [cv.IsEnum({ A: 'a', B: 'b' })],
  date: [cv.IsDate(), toDate],
  'date from a function': [cv.MinDate(() => new Date(0)), toDate],
  unique: [cv.ArrayUnique()],
  'divisible by a fraction': [cv.IsDivisibleBy(2.5)],
  'divisible by less than one': [cv.IsDivisibleBy(-2)],
};
const bare =
  'IsDefined IsBoolean IsNumber IsInt IsString IsArray IsObject IsNotEmptyObject IsPositive IsNegative ' +
  'IsDateString IsISO8601 IsUrl IsIP IsFQDN IsEmail IsUUID IsNumberString IsBooleanString IsAlpha IsAlphanumeric ' +
  'IsHexColor IsHexadecimal IsMongoId IsSurrogatePair IsAscii IsFullWidth IsHalfWidth IsMultibyte IsVariableWidth ' +
  'IsBase64 IsCreditCard IsCurrency IsISBN IsISIN IsJSON IsLowercase IsUppercase IsMilitaryTime IsMobilePhone ' +
  'IsPort IsTimeZone IsLatitude IsLongitude IsLatLong IsDecimal IsSemVer IsJWT IsLocale IsMimeType IsHSL ' +
  'IsRFC3339 ArrayNotEmpty';
for (const name of bare.split(' '))
  decorators[name] = [(cv as unknown as Record<string, () => PropertyDecorator>)[name]!()];
const limits: [string, number][] = [
  ['Min', 1],
  ['Max', 3],
  ['MinLength', 2],
  ['MaxLength', 2],
  ['Length', 1],
  ['ArrayMinSize', 1],
  ['ArrayMaxSize', 1],
  ['Equals', 1],
  ['NotEquals', 1],
];
for (const [name, limit] of limits)
  decorators[name] = [
    (cv as unknown as Record<string, (n: number) => PropertyDecorator>)[name]!(limit),
  ];

const values = [
  null,
  true,
  false,
  0,
  1,
  2,
  4,
  -1,
  1.5,
  5,
  1e21,
  '',
  'a',
  'ABC',
  'abc',
  'One',
  '1',
  '1.5',
  '-1',
  'true',
  '0',
  'a.b',
  '(',
  '555-1234',
  'https://example.com',
  'example.com',
  'localhost',
  'x_y.de',
  '2025-01-01',
  '2025-01-01T10:00:00Z',
  '2025-01-01T10:00',
  '2025-W01-1',
  '2025-01-01T10:00:00.000Z',
  '12:30',
  '::1',
  '127.0.0.1',
  '😀',
  'ü',
  'ａ',
  'x@example.com',
  'ü@example.com',
  '"a b"@example.com',
  '#abcd',
  '0xff',
  '0x0123456789abcdef012345',
  '1.2.3',
  'UTC',
  '48,11',
  '{"a":1}',
  'YQ==',
  '9b2d6c3e-0f4b-4f0a-8f52-3a1d2f6f7a10',
  '4111111111111111',
  '$10.50',
  [],
  [1],
  ['a'],
  [1, 1.5],
  [{}, {}],
  [null],
  {},
  { a: 1 },
  { a: null },
];

function classOf(all: PropertyDecorator[], type: unknown): new () => object {
  class Described {}
  Reflect.defineMetadata('design:type', type, Described.prototype, 'n');
  for (const decorate of all) decorate(Described.prototype, 'n');
  return Described;
}

describe.each([Object, Array, String])('typed %o', (type) => {
  it.each(Object.entries(decorators))('%s', async (_what, all) => {
    const { schema, decode } = contextContract(classOf(all, type));
    const check = schemaCheck(schema);
    const refused: unknown[] = [];
    for (const stored of [{}, ...values.map((n) => ({ n }))]) {
      const accepted = await Promise.resolve()
        .then(() => decode(structuredClone(stored)))
        .then(
          () => true,
          () => false,
        );
      if (accepted && check(stored).length > 0) refused.push(stored);
    }
    expect(refused).toEqual([]);
  });
});

it('a property with a default value is optional', () => {
  class Defaulted {
    @cv.IsInt() n = 5;
    @cv.IsInt() m!: number;
  }
  expect(contextContract(Defaulted).schema).toMatchObject({ required: ['m'] });
});

it.each([Object, Array])('ValidateNested without @Type, typed %o', (type) => {
  const { schema } = contextContract(classOf([cv.ValidateNested()], type));
  expect(schema).toMatchObject({ properties: { n: {} } });
});

it('a member without a schema does not affect the other members', () => {
  class PartlyDescribed {
    @cv.Matches(/^\-$/) a!: string;
    @cv.IsInt() b!: number;
  }
  expect(contextContract(PartlyDescribed).schema).toMatchObject({
    properties: { a: {}, b: { type: 'integer' } },
    required: ['a', 'b'],
  });
});

it('a class without a schema is described as any object', async () => {
  class Odd {
    @cv.IsInt() n!: number;
  }
  class Refusing {
    constructor() {
      throw new Error('not to be made');
    }
  }
  Type(() => Number)(Odd.prototype, 'n');
  Reflect.defineMetadata('design:type', Refusing, Odd.prototype, 'm');
  Type(() => Refusing)(Odd.prototype, 'm');
  cv.IsOptional()(Odd.prototype, 'm');
  const { schema, decode } = contextContract(Odd);
  expect(schema).toEqual({ type: 'object' });
  await expect(Promise.resolve(decode({ n: 'x' }))).rejects.toThrow();
});
