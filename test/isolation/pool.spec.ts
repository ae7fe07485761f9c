import { expect, it } from 'vitest';
import { HostPool } from '../../src/runner/hosts/pool.js';

it('a host that cannot be made is told of and tried again, and who waits can leave', async () => {
  const told: unknown[] = [];
  const pool = new HostPool({
    most: 1,
    idleMs: 1_000,
    bootMs: 1_000,
    make: () => {
      throw new Error('EAGAIN');
    },
    failed: (doing, error) => told.push([doing, (error as Error).message]),
  });
  const leave = new AbortController();
  const waiting = pool.take(leave.signal);
  await expect
    .poll(() => told)
    .toContainEqual(['starting a host for jobs', 'EAGAIN']);
  leave.abort(new Error('enough'));
  await expect(waiting).rejects.toThrow('enough');
  await pool.close(0);
});
