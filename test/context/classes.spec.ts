import { Type } from 'class-transformer';
import {
  Allow,
  ArrayMaxSize,
  IsArray,
  IsBoolean,
  IsDate,
  IsDefined,
  IsEmail,
  IsIn,
  IsInt,
  IsOptional,
  IsString,
  IsUUID,
  Max,
  MaxLength,
  Min,
  ValidateIf,
  ValidateNested,
} from 'class-validator';
import { BildadJob, type JobHandler } from 'nestjs-bildad';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { refusal } from '../support/capture.js';

// A class as context: the handler receives an instance. A process without the class enforces the
// JSON Schema derived from it.

class Item {
  @IsString() @MaxLength(20) sku!: string;
  @IsInt() @Min(1) @Max(99) count!: number;
}

class Address {
  @IsString() street!: string;
  @IsOptional() @IsString() zip?: string | null;
}

class Order {
  @IsEmail() to!: string;
  @IsDefined() @ValidateNested() @Type(() => Address) address!: Address;
  // class-validator checks the property only when it is present.
  @ValidateNested() @Type(() => Address) billing?: Address;
  @Allow() meta?: unknown;
  @IsArray()
  @ArrayMaxSize(3)
  @ValidateNested({ each: true })
  @Type(() => Item)
  items!: Item[];
  @IsDate() @Type(() => Date) dueAt!: Date;
  @IsIn(['card', 'invoice']) pay!: string;
  @ValidateIf((order: Order) => order.pay === 'card')
  @IsString()
  card?: string;
  @IsOptional() @IsBoolean() gift?: boolean | null;
  @IsOptional() @IsUUID() coupon?: string;

  get pieces(): number {
    return this.items.reduce((sum, { count }) => sum + count, 0);
  }

  cheaper(than: Order): boolean {
    return this.pieces < than.pieces;
  }
}

@BildadJob({ code: 'ORDER', context: Order, maxRetries: 0 })
class OrderJob implements JobHandler<Order> {
  static received: Order;

  runJob(order: Order): number {
    OrderJob.received = order;
    return order.pieces;
  }
}

const order = {
  to: 'ada@example.com',
  address: { street: 'Main St', zip: null },
  items: [
    { sku: 'A', count: 1 },
    { sku: 'B', count: 2 },
  ],
  dueAt: new Date('2030-01-02T03:04:05.678Z'),
  pay: 'invoice',
};

let consumer: TestApp;
/** An app on the same database without the class. */
let producer: TestApp;
beforeAll(async () => {
  consumer = await bootApp({ providers: [OrderJob] });
  producer = await bootApp({
    database: consumer.database,
    options: { role: 'producer' },
  });
});
afterAll(async () => {
  await producer.close();
  await consumer.close();
});

const run = async (context: unknown) => {
  const { engine } = consumer;
  const started = await engine.enqueueAndRunJob(OrderJob, context as Order);
  return engine.waitForJob(started.jobRunIdentifier);
};

describe('with the class', () => {
  it('the handler receives instances, nested ones too, and equal Dates', async () => {
    const ended = await run(order);
    expect(ended).toMatchObject({ result: 'SUCCEEDED', output: 3 });
    const { received } = OrderJob;
    expect(received).toBeInstanceOf(Order);
    expect(received.address).toBeInstanceOf(Address);
    expect(received.items.every((item) => item instanceof Item)).toBe(true);
    expect(received).toEqual(order);
    expect(ended.jobContext).toEqual({
      ...order,
      dueAt: '2030-01-02T03:04:05.678Z',
    });
  });

  it('an instance is accepted like a plain object', async () => {
    await run(Object.assign(new Order(), order));
    expect(OrderJob.received).toEqual(order);
  });

  it('ISO text is accepted in place of a Date', async () => {
    await run({ ...order, dueAt: '2030-01-02T03:04:05.678Z' });
    expect(OrderJob.received).toEqual(order);
  });

  it.each<[what: string, changes: object, path: string, why: RegExp]>([
    ['a wrong property', { to: 'ada' }, 'to', /email/],
    ['a missing property', { to: undefined }, 'to', /email/],
    ['a wrong nested object', { address: { street: 5 } }, 'address.street', /string/],
    ['a missing nested object', { address: undefined }, 'address', /./],
    ['text in place of a nested object', { address: 'Main St' }, 'address', /object/],
    [
      'a wrong element of an array',
      { items: [order.items[0], { sku: 'B', count: 100 }] },
      'items[1].count',
      /99/,
    ],
    ['an array that is too long', { items: Array(4).fill(order.items[0]) }, 'items', /3/],
    ['an object in place of an array', { items: { 0: {} } }, 'items', /array/],
    ['a missing property that a condition requires', { pay: 'card' }, 'card', /string/],
    ['a wrong nested object that is optional', { billing: {} }, 'billing.street', /string/],
    ['a value outside the enumeration', { pay: 'cash' }, 'pay', /card, invoice/],
    ['null for a property that is not optional', { pay: null }, 'pay', /./],
    ['text that is not a date', { dueAt: 'tomorrow' }, 'dueAt', /Date/],
    ['a Date in place of text', { to: new Date() }, 'to', /./],
    ['a Date in an undeclared property', { extra: { at: new Date() } }, 'extra.at', /@Type/],
    ['__proto__', JSON.parse('{"__proto__":{"x":1}}') as object, '__proto__', /key/],
    ['constructor', { address: { street: 'x', constructor: 1 } }, 'address.constructor', /drop/],
    ['the name of an Object.prototype member', { toString: 1 }, 'toString', /drop/],
    [
      'the name of an Object.prototype member, deep in an undeclared property',
      { meta: [{ counts: { a: 4, valueOf: 1 } }] },
      'meta[0].counts.valueOf',
      /drop/,
    ],
    ['the name of a getter of the class', { pieces: 7 }, 'pieces', /drop/],
    ['the name of a method of the class', { cheaper: 7 }, 'cheaper', /drop/],
  ])('%s is rejected with its path', async (_what, changes, path, why) => {
    const context = Object.defineProperties(
      { ...order },
      Object.getOwnPropertyDescriptors(changes),
    );
    const found = (await refusal(consumer, context, OrderJob)).filter(
      (violation) => violation.path === path,
    );
    expect(found).not.toEqual([]);
    expect(found.map(({ message }) => message).join()).toMatch(why);
  });

  it.each([[null], [[order]], ['order'], [42], [undefined]])(
    '%j is rejected as a whole',
    async (context) => {
      expect(await refusal(consumer, context, OrderJob)).toMatchObject([{ path: '' }]);
    },
  );

  it.each<[what: string, changes: object]>([
    ['null for an optional property', { gift: null }],
    ['a missing optional property', { gift: undefined }],
    ['a missing property whose condition does not hold', { card: undefined }],
    ['any value for a property whose condition does not hold', { card: 5 }],
    ['a missing nested object without @IsDefined', { billing: undefined }],
    ['any value for a property with @Allow', { meta: [1] }],
    ['undeclared properties', { note: { deep: [1] } }],
  ])('%s is accepted', async (_what, changes) => {
    await run({ ...order, ...changes });
    expect(OrderJob.received).toEqual({ ...order, ...changes });
  });
});

describe('without the class, by code', () => {
  it('the template has the JSON Schema, including nested classes', async () => {
    const [template] = await producer.jobs.listJobTemplates();
    expect(template!.jobContextSchema).toMatchObject({
      type: 'object',
      required: expect.arrayContaining(['to', 'items', 'pay']) as string[],
      properties: {
        to: { type: 'string', format: 'idn-email' },
        address: { $ref: '#/$defs/Address' },
        items: { items: { $ref: '#/$defs/Item' }, type: 'array', maxItems: 3 },
      },
      $defs: {
        Item: {
          properties: {
            sku: { type: 'string', maxLength: 20 },
            count: { type: 'integer', minimum: 1, maximum: 99 },
          },
          required: ['sku', 'count'],
        },
      },
    });
  });

  it('a context that the class accepts is accepted and reaches the handler', async () => {
    const entry = await producer.engine.enqueueJob('ORDER', {
      ...order,
      dueAt: order.dueAt.toISOString(),
      gift: null,
      card: 5,
      note: 'undeclared',
    });
    await consumer.engine.runJob(entry);
    const ended = await consumer.engine.waitForJob(entry.jobRunIdentifier);
    expect(ended.result).toBe('SUCCEEDED');
    expect(OrderJob.received).toMatchObject(order);
  });

  it.each<[what: string, changes: object, path: string]>([
    ['a wrong property', { to: 'ada' }, 'to'],
    ['a missing property', { to: undefined }, 'to'],
    ['a wrong nested object', { address: { street: 5 } }, 'address.street'],
    ['a missing nested object', { address: undefined }, 'address'],
    ['a wrong element of an array', { items: [{ sku: 'B', count: 100 }] }, 'items[0].count'],
    ['a wrong optional nested object', { billing: {} }, 'billing.street'],
    ['a value outside the enumeration', { pay: 'cash' }, 'pay'],
    ['a Date, which only the class could restore', {}, 'dueAt'],
  ])('%s is rejected with its path', async (_what, changes, path) => {
    const dueAt = path === 'dueAt' ? order.dueAt : order.dueAt.toISOString();
    const context = { ...order, dueAt, ...changes };
    const paths = (await refusal(producer, context, 'ORDER')).map((violation) => violation.path);
    expect(paths).toContain(path);
  });
});
