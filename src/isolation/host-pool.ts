import { runAfter, waitAtMost } from '../concurrency/timers.js';
import type { JobHost } from './job-host.js';

const FIRST_PAUSE_MS = 1_000;
const MAX_PAUSE_MS = 15_000;
/** Most boots take one or two seconds. */
const SLOW_BOOT_MS = 10_000;
/** Time for a killed host to end. */
const KILL_WAIT_MS = 2_000;

export interface HostPoolOptions {
  /** Maximum number of hosts. */
  max: number;
  /** A host that is idle for this long is closed, except the last one. */
  idleMs: number;
  /** A host that takes longer to boot is killed. */
  bootMs: number;
  createHost(onStrayError: (error: unknown) => void): JobHost;
  onError(doing: string, error: unknown): void;
}

type Waiter = (host: JobHost) => void;

/** The hosts of one kind: started on demand, kept warm, and replaced when they end. */
export class HostPool {
  private readonly all = new Set<JobHost>();
  private readonly idle: JobHost[] = [];
  private readonly idleTimers = new Map<JobHost, () => void>();
  private readonly waiting = new Set<Waiter>();
  private booting = 0;
  private failures = 0;
  private retry: NodeJS.Timeout | undefined;
  private draining = false;
  private closed = false;

  constructor(private readonly options: HostPoolOptions) {}

  /** Starts the first host. @returns the codes of its handlers @throws the error of its boot */
  async warm(): Promise<string[]> {
    const host = this.createHost();
    try {
      const codes = await host.ready;
      this.assignHost(host);
      return codes;
    } catch (error) {
      this.closed = true;
      throw error;
    }
  }

  /** Whether a host is free now. */
  get hasIdle(): boolean {
    return this.idle.length > 0;
  }

  /** From now on hosts start only for waiting jobs. */
  drain(): void {
    this.draining = true;
  }

  /** Waits for a host to run one job. @throws the signal's reason */
  acquire(signal: AbortSignal): Promise<JobHost> {
    const host = this.idle.pop();
    if (host) {
      this.stopIdleTimer(host);
      return Promise.resolve(host);
    }
    return new Promise((resolve, reject) => {
      const waiter: Waiter = (free) => {
        signal.removeEventListener('abort', stopWaiting);
        resolve(free);
      };
      const stopWaiting = () => {
        this.waiting.delete(waiter);
        reject(signal.reason as Error);
      };
      if (signal.aborted) return reject(signal.reason as Error);
      signal.addEventListener('abort', stopWaiting, { once: true });
      this.waiting.add(waiter);
      this.startWaitedHosts();
    });
  }

  /** Returns a host after its job. */
  release(host: JobHost): void {
    if (host.isSpent) void host.kill();
    else this.assignHost(host);
  }

  /** Kills hosts that do not end within `ms`. Does not wait for a thread in a native call. */
  async close(ms: number): Promise<void> {
    this.closed = true;
    clearTimeout(this.retry);
    const hosts = [...this.all];
    for (const host of hosts) {
      this.stopIdleTimer(host);
      host.close();
    }
    const ended = Promise.all(hosts.map(({ exited }) => exited));
    await waitAtMost(ms, ended);
    for (const host of this.all) void host.kill();
    await waitAtMost(KILL_WAIT_MS, ended);
  }

  private assignHost(host: JobHost): void {
    const [waiter] = this.waiting;
    if (waiter) {
      this.waiting.delete(waiter);
      return waiter(host);
    }
    this.idle.push(host);
    this.idleTimers.set(
      host,
      runAfter(
        this.options.idleMs,
        () => {
          if (this.reusableCount > 1) this.retire(host);
        },
        { keepsAlive: false },
      ),
    );
  }

  /** Number of hosts that can run more jobs. */
  private get reusableCount(): number {
    return [...this.all].filter(({ isSpent }) => !isSpent).length;
  }

  private retire(host: JobHost): void {
    this.removeIdle(host);
    host.close();
    // Its module may never finish closing.
    const late = setTimeout(() => void host.kill(), this.options.bootMs);
    void host.exited.then(() => clearTimeout(late));
  }

  /** Starts a host for each waiting job, up to the limit. */
  private startWaitedHosts(): void {
    while (
      !this.closed &&
      this.retry === undefined &&
      this.booting < this.waiting.size &&
      this.all.size < this.options.max
    )
      void this.startHost();
  }

  /** Never rejects. */
  private async startHost(): Promise<void> {
    try {
      // Throws when the system is out of memory or descriptors.
      const host = this.createHost();
      await host.ready;
      this.failures = 0;
      this.assignHost(host);
    } catch (error) {
      if (this.closed) return;
      this.options.onError('starting a host for jobs', error);
      const pause = FIRST_PAUSE_MS * 2 ** this.failures++;
      this.retry ??= setTimeout(
        () => {
          this.retry = undefined;
          this.startWaitedHosts();
        },
        Math.min(pause, MAX_PAUSE_MS),
      );
    }
  }

  private createHost(): JobHost {
    const host = this.options.createHost((error) => this.handleStrayError(host, error));
    this.all.add(host);
    this.booting++;
    const late = setTimeout(() => void host.kill(), this.options.bootMs);
    let isCounted = true;
    const stopCounting = () => {
      if (isCounted) this.booting--;
      isCounted = false;
    };
    // It may hang: waiting jobs get another host, up to the limit.
    const slow = setTimeout(() => {
      stopCounting();
      this.options.onError('starting a host for jobs', slowBoot());
      this.startWaitedHosts();
    }, SLOW_BOOT_MS);
    const booted = host.ready
      // A host that did not boot is killed, not asked to close.
      .catch(() => void host.kill())
      .finally(() => {
        clearTimeout(late);
        clearTimeout(slow);
        stopCounting();
      });
    void Promise.all([booted, host.exited]).then(() => this.replace(host));
    return host;
  }

  private replace(host: JobHost): void {
    this.all.delete(host);
    this.removeIdle(host);
    if (this.closed) return;
    this.startWaitedHosts();
    // The next job should not wait for a boot.
    if (this.all.size === 0 && this.retry === undefined && !this.draining) void this.startHost();
  }

  private handleStrayError(host: JobHost, error: unknown): void {
    this.options.onError(`running work that an ended job left behind in its ${host.kind}`, error);
    if (this.idle.includes(host)) this.retire(host);
  }

  private removeIdle(host: JobHost): void {
    this.stopIdleTimer(host);
    const index = this.idle.indexOf(host);
    if (index >= 0) this.idle.splice(index, 1);
  }

  private stopIdleTimer(host: JobHost): void {
    this.idleTimers.get(host)?.();
    this.idleTimers.delete(host);
  }
}

const slowBoot = () => new Error(`it has not booted the module after ${SLOW_BOOT_MS / 1_000} s`);
