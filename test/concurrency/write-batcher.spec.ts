import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { BLOCKED, LockRetry } from '../../src/concurrency/lock-retry.js';
import { WriteBatcher } from '../../src/concurrency/write-batcher.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { gate } from '../support/gate.js';

// A batcher writes rows of a real table. Another transaction locks some of them.

let database: TestDatabase;
let pool: pg.Pool;
let locker: pg.Client;
beforeAll(async () => {
  database = await createDatabase();
  pool = new pg.Pool({ connectionString: database.url });
  locker = new pg.Client({ connectionString: database.url });
  await locker.connect();
  await pool.query('CREATE TABLE items (id integer PRIMARY KEY, n integer NOT NULL CHECK (n < 9))');
});
afterAll(async () => {
  await locker.end();
  await pool.end();
  await database.drop();
});
beforeEach(() =>
  pool.query('TRUNCATE items; INSERT INTO items SELECT i, 0 FROM generate_series(1, 1000) i'),
);

const code = (error: unknown) => (error as { code?: string }).code;
const retry = (patienceMs: number) =>
  new LockRetry({
    isLocked: (error) => code(error) === '55P03',
    lockWaitMs: () => 50,
    patienceMs: () => patienceMs,
    timeoutError: (what, ms) => new Error(`${what} was locked for ${ms} ms`),
  });

interface Item {
  id: number;
  n?: number;
}

async function update(items: Item[]): Promise<number[]> {
  const client = await pool.connect();
  try {
    await client.query(`BEGIN; SET LOCAL lock_timeout = 50`);
    await client.query(
      `UPDATE items SET n = given.n FROM unnest($1::int[], $2::int[]) given (id, n) WHERE items.id = given.id`,
      [items.map(({ id }) => id), items.map(({ n }) => n ?? 1)],
    );
    await client.query('COMMIT');
    return items.map(({ id }) => id);
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  } finally {
    client.release();
  }
}

function batcher(options: Partial<ConstructorParameters<typeof WriteBatcher<Item, number>>[0]>) {
  const statements: number[][] = [];
  const write = options.write ?? update;
  const batches = new WriteBatcher<Item, number>({
    maxItems: 100,
    bytesOf: () => 1,
    isItemFault: (error) => code(error) === '23514',
    lockRetry: retry(10_000),
    ...options,
    write: (items) => {
      statements.push(items.map(({ id }) => id));
      return write(items);
    },
  });
  return { batches, statements };
}

const lock = async (...ids: number[]) => {
  await locker.query('BEGIN');
  await locker.query('SELECT FROM items WHERE id = ANY ($1) FOR UPDATE', [ids]);
};

describe('batches', () => {
  it('items of one turn share a statement, and so do items that come while it runs', async () => {
    const { batches, statements } = batcher({});
    const first = [1, 2, 3].map((id) => batches.add({ id }));
    await Promise.resolve();
    await Promise.resolve();
    const second = [4, 5].map((id) => batches.add({ id }));
    expect(batches.size).toBe(5);
    expect(await Promise.all([...first, ...second])).toEqual([1, 2, 3, 4, 5]);
    expect(statements).toEqual([
      [1, 2, 3],
      [4, 5],
    ]);
    expect(batches.size).toBe(0);
  });

  it('a statement takes at most maxItems, and about 4 MB', async () => {
    const { batches, statements } = batcher({
      maxItems: 3,
      bytesOf: ({ id }) => (id > 3 ? 3 * 1_048_576 : 1),
    });
    await Promise.all([1, 2, 3, 4, 5].map((id) => batches.add({ id })));
    expect(statements).toEqual([[1, 2, 3], [4], [5]]);
  });

  it('the error of an item rejects that item only', async () => {
    const { batches } = batcher({});
    const results = await Promise.allSettled(
      [1, 2, 3, 4].map((id) => batches.add({ id, n: id === 3 ? 10 : 1 })),
    );
    expect(results.map(({ status }) => status)).toEqual([
      'fulfilled',
      'fulfilled',
      'rejected',
      'fulfilled',
    ]);
    expect(await pool.query('SELECT id FROM items WHERE n = 1 ORDER BY id')).toMatchObject({
      rows: [{ id: 1 }, { id: 2 }, { id: 4 }],
    });
  });

  it('an error of bytesOf or write rejects its items, and the next items are written', async () => {
    const { batches } = batcher({
      bytesOf: ({ id }) => {
        if (id === 1) throw new Error('no size');
        return 1;
      },
      write: (items) => {
        if (items[0]!.id === 2) throw new Error('no statement');
        return update(items);
      },
    });
    const [sizeless, thrown] = await Promise.allSettled([
      batches.add({ id: 1 }),
      batches.add({ id: 2 }),
    ]);
    expect(sizeless).toMatchObject({ reason: { message: 'no size' } });
    expect(thrown).toMatchObject({ reason: { message: 'no statement' } });
    expect(await batches.add({ id: 3 })).toBe(3);
    expect(batches.size).toBe(0);
  });
});

describe('locked rows', () => {
  it('a locked row delays its own item only, and neither its batch nor later batches', async () => {
    const { batches } = batcher({});
    await lock(2);
    let landed = false;
    const locked = batches.add({ id: 2 }).then(() => (landed = true));
    expect(await Promise.all([1, 3, 4].map((id) => batches.add({ id })))).toEqual([1, 3, 4]);
    expect(await batches.add({ id: 5 })).toBe(5);
    expect(landed).toBe(false);
    expect(batches.size).toBe(1);
    await locker.query('COMMIT');
    await locked;
    expect(batches.size).toBe(0);
  });

  it('a statement can report single items as blocked', async () => {
    const held = gate();
    let isHeld = true;
    const { batches, statements } = batcher({
      write: async (items) => items.map(({ id }) => (id === 2 && isHeld ? BLOCKED : id)),
      writeBlocked: async (items) => {
        if (isHeld) held.open();
        return items.map(({ id }) => (isHeld ? BLOCKED : id));
      },
    });
    const locked = batches.add({ id: 2 });
    expect(await Promise.all([1, 3].map((id) => batches.add({ id })))).toEqual([1, 3]);
    await held.opened;
    isHeld = false;
    expect(await locked).toBe(2);
    expect(statements).toEqual([[2, 1, 3]]);
  });

  it('items that a short lock blocks together are retried together', async () => {
    const ids = Array.from({ length: 100 }, (_, index) => index + 1);
    let isHeld = true;
    const retries: number[] = [];
    const { batches } = batcher({
      write: async (items) => items.map(() => BLOCKED),
      writeBlocked: async (items) => {
        retries.push(items.length);
        const results = items.map(({ id }) => (isHeld && id % 2 === 0 ? BLOCKED : id));
        isHeld = false;
        return results;
      },
    });
    expect(await Promise.all(ids.map((id) => batches.add({ id })))).toEqual(ids);
    expect(retries).toEqual([100, 50]);
    expect(batches.size).toBe(0);
  });

  it('an error of a retried batch rejects only the item at fault', async () => {
    const { batches } = batcher({
      write: async (items) => items.map(() => BLOCKED),
      writeBlocked: update,
    });
    const results = await Promise.allSettled(
      [1, 2, 3].map((id) => batches.add({ id, n: id === 2 ? 10 : 1 })),
    );
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    expect(batches.size).toBe(0);
  });

  it('a blocked batch that stays locked is rejected at the deadline', async () => {
    const { batches } = batcher({
      lockRetry: retry(100),
      write: async (items) => items.map(() => BLOCKED),
      writeBlocked: async (items) => items.map(() => BLOCKED),
    });
    await expect(batches.add({ id: 1 })).rejects.toThrow('a row of the job was locked for 100 ms');
  });

  it('an item whose row stays locked is rejected at the deadline', async () => {
    const { batches } = batcher({ lockRetry: retry(200) });
    await lock(1);
    await expect(batches.add({ id: 1 })).rejects.toThrow('a row of the job was locked for 200 ms');
    await locker.query('COMMIT');
    expect(await batches.add({ id: 1 })).toBe(1);
  });

  it('many attempts for one lock do not delay an attempt for a free row', async () => {
    const locks = retry(10_000);
    await lock(1);
    let attempts = 0;
    const waiting = Array.from({ length: 30 }, () =>
      locks.run(
        'a row',
        () => {
          attempts++;
          return update([{ id: 1 }]);
        },
        'one',
      ),
    );
    await locks.run('a row', () => update([{ id: 2 }]), 'two');
    expect(attempts).toBeLessThan(5);
    await locker.query('COMMIT');
    await Promise.all(waiting);
  });
});
