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

// The fast path for flat contexts accepts only contexts that class-validator accepts, and creates
// the same instances as class-transformer.

class Flat {
  @IsInt() @Min(1) n!: number;
  @IsString() @MaxLength(3) text!: string;
  @IsOptional() @IsEmail() mail?: string;
  @IsOptional() @IsString({ each: true }) tags?: string[];
  @IsIn(['a', 1, null]) kind: unknown = 'a';
}
class FlatSubclass extends Flat {
  @IsBoolean() more!: boolean;
}
class Nested {
  @ValidateNested() @Type(() => Flat) inner!: Flat;
}
class Conditional {
  @ValidateIf(() => false) @IsInt() n!: number;
}
class CustomRule {
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

it.each([Flat, FlatSubclass])(
  '%o: the fast path accepts only valid contexts, and its instances are equal',
  async (target) => {
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
  },
);

it('flat valid contexts take the fast path', () => {
  expect(fastInstance(Flat)!(good)).toEqual(plainToInstance(Flat, good));
  expect(fastInstance(Flat)!({ n: 1, text: '' })).toMatchObject({
    kind: 'a',
  });
  expect(fastInstance(FlatSubclass)!({ ...good, more: false })).toBeInstanceOf(FlatSubclass);
});

it.each([
  ['a wrong value', { ...good, n: 0 }],
  ['a missing value', { n: 1 }],
  ['a wrong array element', { ...good, tags: ['t', 1] }],
  ['an unknown property', { ...good, other: 1 }],
  ['an array', [good]],
])('%s takes the slow path', (_what, context) => {
  expect(fastInstance(Flat)!(context as never)).toBeNull();
});

it.each([Nested, Conditional, CustomRule, Dated])('%o takes the slow path', (target) => {
  expect(fastInstance(target)).toBeNull();
});
