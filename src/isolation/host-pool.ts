import { runAfter, waitAtMost } from '../concurrency/timers.js';
import type { JobHost } from './job-host.js';

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 15_000;
/** A boot usually takes one or two seconds. */
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
  make(strayed: (error: unknown) => void): JobHost;
  failed(doing: string, error: unknown): void;
}

type Waiter = (host: JobHost) => void;

/** The hosts of one kind: started on demand, kept warm, and replaced when they end. */
export class HostPool {
  private readonly all = new Set<JobHost>();
  private readonly idle: JobHost[] = [];
  private readonly alarms = new Map<JobHost, () => void>();
  private readonly waiting = new Set<Waiter>();
  private booting = 0;
  private failures = 0;
  private retry: NodeJS.Timeout | undefined;
  private draining = false;
  private closed = false;

  constructor(private readonly options: HostPoolOptions) {}

  /** Starts the first host. @returns the codes of its handlers @throws the error of its boot */
  async warm(): Promise<string[]> {
    const host = this.make();
    try {
      const codes = await host.ready;
      this.offer(host);
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
  take(signal: AbortSignal): Promise<JobHost> {
    const host = this.idle.pop();
    if (host) {
      this.disarm(host);
      return Promise.resolve(host);
    }
    return new Promise((resolve, reject) => {
      const waiter: Waiter = (free) => {
        signal.removeEventListener('abort', leave);
        resolve(free);
      };
      const leave = () => {
        this.waiting.delete(waiter);
        reject(signal.reason as Error);
      };
      if (signal.aborted) return reject(signal.reason as Error);
      signal.addEventListener('abort', leave, { once: true });
      this.waiting.add(waiter);
      this.grow();
    });
  }

  /** Takes a host back after its job. */
  release(host: JobHost): void {
    if (host.worn) void host.kill();
    else this.offer(host);
  }

  /** Kills hosts that do not end within `ms`. Does not wait for a thread in a native call. */
  async close(ms: number): Promise<void> {
    this.closed = true;
    clearTimeout(this.retry);
    const hosts = [...this.all];
    for (const host of hosts) {
      this.disarm(host);
      host.close();
    }
    const ended = Promise.all(hosts.map(({ gone }) => gone));
    await waitAtMost(ms, ended);
    for (const host of this.all) void host.kill();
    await waitAtMost(KILL_WAIT_MS, ended);
  }

  private offer(host: JobHost): void {
    const [waiter] = this.waiting;
    if (waiter) {
      this.waiting.delete(waiter);
      return waiter(host);
    }
    this.idle.push(host);
    this.alarms.set(
      host,
      runAfter(
        this.options.idleMs,
        () => {
          if (this.lasting > 1) this.retire(host);
        },
        { keepsAlive: false },
      ),
    );
  }

  /** Number of hosts that can run more jobs. */
  private get lasting(): number {
    return [...this.all].filter(({ worn }) => !worn).length;
  }

  private retire(host: JobHost): void {
    this.forget(host);
    host.close();
    // Its module may never finish closing.
    const late = setTimeout(() => void host.kill(), this.options.bootMs);
    void host.gone.then(() => clearTimeout(late));
  }

  /** Starts a host for each waiting job, up to the limit. */
  private grow(): void {
    while (
      !this.closed &&
      this.retry === undefined &&
      this.booting < this.waiting.size &&
      this.all.size < this.options.max
    )
      void this.add();
  }

  /** Never rejects. */
  private async add(): Promise<void> {
    try {
      // Throws when the system is out of memory or descriptors.
      const host = this.make();
      await host.ready;
      this.failures = 0;
      this.offer(host);
    } catch (error) {
      if (this.closed) return;
      this.options.failed('starting a host for jobs', error);
      const pause = FIRST_PAUSE_MS * 2 ** this.failures++;
      this.retry ??= setTimeout(
        () => {
          this.retry = undefined;
          this.grow();
        },
        Math.min(pause, LONGEST_PAUSE_MS),
      );
    }
  }

  private make(): JobHost {
    const host = this.options.make((error) => this.strayed(host, error));
    this.all.add(host);
    this.booting++;
    const late = setTimeout(() => void host.kill(), this.options.bootMs);
    let counted = true;
    const discount = () => {
      if (counted) this.booting--;
      counted = false;
    };
    // It may hang: waiting jobs get another host, up to the limit.
    const slow = setTimeout(() => {
      discount();
      this.options.failed('starting a host for jobs', slowBoot());
      this.grow();
    }, SLOW_BOOT_MS);
    const booted = host.ready
      // A host that did not boot is killed, not asked to close.
      .catch(() => void host.kill())
      .finally(() => {
        clearTimeout(late);
        clearTimeout(slow);
        discount();
      });
    void Promise.all([booted, host.gone]).then(() => this.replace(host));
    return host;
  }

  private replace(host: JobHost): void {
    this.all.delete(host);
    this.forget(host);
    if (this.closed) return;
    this.grow();
    // The next job should not wait for a boot.
    if (this.all.size === 0 && this.retry === undefined && !this.draining) void this.add();
  }

  private strayed(host: JobHost, error: unknown): void {
    this.options.failed(`what a job left behind in its ${host.kind}`, error);
    if (this.idle.includes(host)) this.retire(host);
  }

  private forget(host: JobHost): void {
    this.disarm(host);
    const index = this.idle.indexOf(host);
    if (index >= 0) this.idle.splice(index, 1);
  }

  private disarm(host: JobHost): void {
    this.alarms.get(host)?.();
    this.alarms.delete(host);
  }
}

const slowBoot = () => new Error(`it has not booted the module after ${SLOW_BOOT_MS / 1_000} s`);
