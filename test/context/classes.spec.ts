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

// A context as a class: the handler gets an instance, and a process without the class enforces the JSON Schema derived from it.

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
  // class-validator looks into it only when it is there.
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
/** On the same database, without the class. */
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
  it('the handler gets instances, nested ones too, and Dates as they were', async () => {
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

  it('an instance does as well as an object', async () => {
    await run(Object.assign(new Order(), order));
    expect(OrderJob.received).toEqual(order);
  });

  it('ISO text does as well as a Date', async () => {
    await run({ ...order, dueAt: '2030-01-02T03:04:05.678Z' });
    expect(OrderJob.received).toEqual(order);
  });

  it.each<[what: string, changes: object, path: string, why: RegExp]>([
    ['a wrong property', { to: 'ada' }, 'to', /email/],
    ['a missing property', { to: undefined }, 'to', /email/],
    ['a nested one', { address: { street: 5 } }, 'address.street', /string/],
    ['no nested one', { address: undefined }, 'address', /./],
    ['text for a nested one', { address: 'Main St' }, 'address', /object/],
    [
      'one of a list',
      { items: [order.items[0], { sku: 'B', count: 100 }] },
      'items[1].count',
      /99/,
    ],
    ['too long a list', { items: Array(4).fill(order.items[0]) }, 'items', /3/],
    ['an object for a list', { items: { 0: {} } }, 'items', /array/],
    ['a condition that holds', { pay: 'card' }, 'card', /string/],
    ['a wrong nested one that may be missing', { billing: {} }, 'billing.street', /string/],
    ['no such word', { pay: 'cash' }, 'pay', /card, invoice/],
    ['null where it is not optional', { pay: null }, 'pay', /./],
    ['no date', { dueAt: 'tomorrow' }, 'dueAt', /Date/],
    ['a Date for text', { to: new Date() }, 'to', /./],
    ['a Date nobody declared', { extra: { at: new Date() } }, 'extra.at', /@Type/],
    ['__proto__', JSON.parse('{"__proto__":{"x":1}}') as object, '__proto__', /key/],
    ['constructor', { address: { street: 'x', constructor: 1 } }, 'address.constructor', /drop/],
    ['what every object has', { toString: 1 }, 'toString', /drop/],
    [
      'what every object has, deep in what nobody declared',
      { meta: [{ counts: { a: 4, valueOf: 1 } }] },
      'meta[0].counts.valueOf',
      /drop/,
    ],
    ['what the class has a getter for', { pieces: 7 }, 'pieces', /drop/],
    ['what is a method of the class', { cheaper: 7 }, 'cheaper', /drop/],
  ])('%s is refused with its path', async (_what, changes, path, why) => {
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
    '%j is refused as a whole',
    async (context) => {
      expect(await refusal(consumer, context, OrderJob)).toMatchObject([{ path: '' }]);
    },
  );

  it.each<[what: string, changes: object]>([
    ['null where it is optional', { gift: null }],
    ['nothing where it is optional', { gift: undefined }],
    ['nothing where the condition does not hold', { card: undefined }],
    ['anything where the condition does not hold', { card: 5 }],
    ['nothing for a nested one that is not @IsDefined', { billing: undefined }],
    ['anything that is @Allow', { meta: [1] }],
    ['properties that nobody declared', { note: { deep: [1] } }],
  ])('%s is accepted', async (_what, changes) => {
    await run({ ...order, ...changes });
    expect(OrderJob.received).toEqual({ ...order, ...changes });
  });
});

describe('without the class, by code', () => {
  it('the template has the JSON Schema, nested classes and all', async () => {
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

  it('what the class accepts is accepted, and reaches the handler', async () => {
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
    ['a nested one', { address: { street: 5 } }, 'address.street'],
    ['no nested one', { address: undefined }, 'address'],
    ['one of a list', { items: [{ sku: 'B', count: 100 }] }, 'items[0].count'],
    ['a nested one that may be missing', { billing: {} }, 'billing.street'],
    ['no such word', { pay: 'cash' }, 'pay'],
    ['a Date, which only the class could bring back', {}, 'dueAt'],
  ])('%s is refused with its path', async (_what, changes, path) => {
    const dueAt = path === 'dueAt' ? order.dueAt : order.dueAt.toISOString();
    const context = { ...order, dueAt, ...changes };
    const paths = (await refusal(producer, context, 'ORDER')).map((violation) => violation.path);
    expect(paths).toContain(path);
  });
});
