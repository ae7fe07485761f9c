import 'reflect-metadata';
import fc from 'fast-check';
import { plainToInstance, Type } from 'class-transformer';
import {
  IsArray,
  IsBoolean,
  IsEmail,
  IsIn,
  IsInt,
  IsOptional,
  IsString,
  MaxLength,
  Min,
  ValidateBy,
  ValidateIf,
  ValidateNested,
  validate,
} from 'class-validator';
import { expect, it } from 'vitest';
import { fastInstance } from '../../src/context/class-instance.js';

// The short way through a flat context accepts nothing that class-validator refuses, and gives what
// class-transformer gives.

class Flat {
  @IsInt() @Min(1) n!: number;
  @IsString() @MaxLength(3) text!: string;
  @IsOptional() @IsEmail() mail?: string;
  @IsOptional() @IsString({ each: true }) tags?: string[];
  @IsIn(['a', 1, null]) kind: unknown = 'a';
}
class Heir extends Flat {
  @IsBoolean() more!: boolean;
}
class Nested {
  @ValidateNested() @Type(() => Flat) inner!: Flat;
}
class Conditional {
  @ValidateIf(() => false) @IsInt() n!: number;
}
class OwnRule {
  @ValidateBy({ name: 'isMine', validator: { validate: () => true } })
  n!: number;
}
class Dated {
  @IsArray() @Type(() => Date) at!: Date[];
}

const value = fc.oneof(
  fc.integer({ min: -2, max: 3 }),
  fc.string({ maxLength: 5 }),
  fc.constantFrom('a', 'x@example.com', '', null, true, 1.5),
  fc.array(fc.oneof(fc.string({ maxLength: 2 }), fc.integer()), {
    maxLength: 3,
  }),
  fc.record({ deep: fc.string() }),
);
const stored = fc.record(
  {
    n: value,
    text: value,
    mail: value,
    tags: value,
    kind: value,
    more: value,
    unknown: value,
  },
  { requiredKeys: [] },
);
const good = {
  n: 1,
  text: 'abc',
  mail: 'x@example.com',
  tags: ['t'],
  kind: 1,
};

it.each([Flat, Heir])('%o: what it accepts is valid, and the same', async (target) => {
  const quick = fastInstance(target)!;
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(
        stored,
        stored.map((some) => ({ ...good, more: true, ...some })),
      ),
      async (context) => {
        const instance = quick(context);
        if (!instance) return;
        const slow = plainToInstance(target, context);
        expect(instance).toEqual(slow);
        expect(instance).toBeInstanceOf(target);
        expect(await validate(slow, { forbidUnknownValues: true })).toEqual([]);
      },
    ),
    { numRuns: 2_000 },
  );
});

it('flat valid contexts take the short way', () => {
  expect(fastInstance(Flat)!(good)).toEqual(plainToInstance(Flat, good));
  expect(fastInstance(Flat)!({ n: 1, text: '' })).toMatchObject({
    kind: 'a',
  });
  expect(fastInstance(Heir)!({ ...good, more: false })).toBeInstanceOf(Heir);
});

it.each([
  ['a value that is wrong', { ...good, n: 0 }],
  ['a value that is missing', { n: 1 }],
  ['an item that is wrong', { ...good, tags: ['t', 1] }],
  ['a property it does not know', { ...good, other: 1 }],
  ['no object', [good]],
])('%s takes the long way', (_what, context) => {
  expect(fastInstance(Flat)!(context as never)).toBeNull();
});

it.each([Nested, Conditional, OwnRule, Dated])('%o takes the long way', (target) => {
  expect(fastInstance(target)).toBeNull();
});
