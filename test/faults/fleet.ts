import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { nowMs, type Event, type Ledger } from './ledger.js';
import type { FaultProxy } from './proxy.js';
import { CLOSE_DEADLINE_MS } from './settings.js';

const script = (name: string) => fileURLToPath(new URL(`./${name}.js`, import.meta.url));

/** Far more than any fault lasts. */
const START_MS = 60_000;

type ExitCause = Extract<Event, { what: 'exit' }>['cause'];

/** A process of the lab behind its own proxy. A supervisor starts it again whenever it ends by itself. */
export class Member {
  private incarnation = 0;
  private child: ChildProcess | undefined;
  private exited: Promise<unknown> = Promise.resolve();
  private cause: ExitCause = 'itself';
  private ready = false;
  private over = false;
  private missing: string | null = null;
  private waiting: Promise<void> | undefined;
  /** On its error output, lately. */
  private said = '';

  constructor(
    readonly name: string,
    readonly proxy: FaultProxy,
    private readonly program: 'worker' | 'client',
    private readonly env: Record<string, string>,
    private readonly ledger: Ledger,
  ) {}

  /** The name of its process in the ledgers. */
  get by(): string {
    return `${this.name}.${this.incarnation}`;
  }

  get process(): ChildProcess | undefined {
    return this.child;
  }

  get isReady(): boolean {
    return this.ready;
  }

  get lacks(): string | null {
    return this.missing;
  }

  /** Resolves when it says that it is ready; while it does not come up, it is started again. */
  async start(missing: string | null = null): Promise<void> {
    this.missing = missing;
    this.spawn();
    const giveUpAt = performance.now() + START_MS;
    while (!this.ready && !this.over) {
      if (performance.now() > giveUpAt)
        throw new Error(`${this.by} is not ready after ${START_MS} ms: ${this.said}`);
      await wait(20);
    }
  }

  private spawn(): void {
    this.incarnation++;
    this.cause = 'itself';
    this.ready = false;
    const child = fork(script(this.program), {
      env: {
        ...process.env,
        ...this.env,
        LAB_NAME: this.by,
        ...(this.missing !== null && { LAB_MISSING: this.missing }),
      },
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.child = child;
    const { by } = this;
    const pid = child.pid!;
    this.ledger.write({
      what: 'spawn',
      worker: by,
      pid,
      missing: this.missing,
    });
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.said = (this.said + text).slice(-2_000);
    });
    child.on('message', (message) => {
      if (message === 'ready') this.ready = true;
    });
    child.on('error', () => undefined);
    this.exited = once(child, 'exit').then(([code, signal]) => {
      const cause = this.cause === 'itself' && !this.ready ? 'boot' : this.cause;
      this.ready = false;
      this.ledger.write({
        what: 'exit',
        worker: by,
        pid,
        code: (code ?? signal) as number | string,
        cause,
      });
      if (cause === 'itself' || cause === 'boot') {
        this.waiting = this.again(cause === 'boot' ? 500 : 200);
      }
    });
  }

  private async again(ms: number): Promise<void> {
    await wait(ms);
    if (!this.over && this.cause === 'itself') this.spawn();
  }

  /** As a power failure. */
  async kill(): Promise<void> {
    this.cause = 'killed';
    this.child?.kill('SIGKILL');
    await this.exited;
    await this.waiting;
  }

  freeze(): void {
    this.child?.kill('SIGSTOP');
  }

  thaw(): void {
    this.child?.kill('SIGCONT');
  }

  /** As a deploy. What has not ended by far later than it should is killed. */
  async terminate(): Promise<void> {
    const { child, by, ready } = this;
    this.cause = 'terminated';
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const asked = nowMs();
    child.kill('SIGTERM');
    let overdue: boolean = false;
    const late = setTimeout(() => {
      overdue = true;
      child.kill('SIGKILL');
    }, CLOSE_DEADLINE_MS + 5_000);
    await this.exited;
    clearTimeout(late);
    // One that is told to end while it starts does so at once, without having been an app.
    if (!ready) return;
    this.ledger.write({
      what: 'close',
      worker: by,
      ms: Math.round(nowMs() - asked),
      deadlineMs: CLOSE_DEADLINE_MS,
      overdue,
    });
  }

  /** It is not started again. */
  async end(how: 'terminate' | 'kill'): Promise<void> {
    this.over = true;
    await this[how]();
    await this.proxy.stop();
  }
}
