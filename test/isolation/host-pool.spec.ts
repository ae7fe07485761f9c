import { expect, it, vi } from 'vitest';
import type { JobHost } from '../../src/isolation/job-host.js';
import { HostPool } from '../../src/isolation/host-pool.js';

it('a host that cannot be created is reported and tried again, and a waiting caller can leave', async () => {
  const reported: unknown[] = [];
  const pool = new HostPool({
    max: 1,
    idleMs: 1_000,
    bootMs: 1_000,
    createHost: () => {
      throw new Error('EAGAIN');
    },
    onError: (doing, error) => reported.push([doing, (error as Error).message]),
  });
  const controller = new AbortController();
  const waiting = pool.acquire(controller.signal);
  await expect.poll(() => reported).toContainEqual(['starting a host for jobs', 'EAGAIN']);
  controller.abort(new Error('enough'));
  await expect(waiting).rejects.toThrow('enough');
  await pool.close(0);
});

it('a boot that hangs does not keep a job from another host', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  try {
    const reported: unknown[] = [];
    const boots: ((codes: string[]) => void)[] = [];
    const pool = new HostPool({
      max: 2,
      idleMs: 1_000,
      bootMs: 60_000,
      createHost: () =>
        new FakeHost(new Promise((resolve) => boots.push(resolve))) as unknown as JobHost,
      onError: (doing) => reported.push(doing),
    });
    const taken = pool.acquire(new AbortController().signal);
    expect(boots).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(reported).toEqual(['starting a host for jobs']);
    expect(boots).toHaveLength(2);
    boots[1]!([]);
    expect(await taken).toBeInstanceOf(FakeHost);
    const closing = pool.close(0);
    await vi.runAllTimersAsync();
    await closing;
  } finally {
    vi.useRealTimers();
  }
});

class FakeHost {
  readonly kind = 'thread';
  readonly isSpent = false;
  declare private end: (why: string) => void;
  readonly exited = new Promise<string>((resolve) => {
    this.end = resolve;
  });

  constructor(readonly ready: Promise<string[]>) {}

  close(): void {}

  async kill(): Promise<void> {
    this.end('killed');
  }
}
