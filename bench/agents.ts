/** The parent's side of the child processes: typed calls, deadlines, and cleanup. */
import { fork, type ChildProcess } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Commands } from './agent.js';
import type { Contender } from './contenders.js';

type Asked<K extends keyof Commands> = Parameters<Commands[K]>[0];
type Answer<K extends keyof Commands> = Awaited<ReturnType<Commands[K]>>;

interface Message {
  ready?: true;
  progress?: number;
  id?: number;
  result?: unknown;
  error?: string;
}

const PROGRAM = fileURLToPath(new URL('./agent.js', import.meta.url));
const DEFAULT_DEADLINE_MS = 120_000;
const alive = new Set<Agent>();

export class Agent {
  /** Jobs that this worker has begun. */
  jobs = 0;
  private readonly process: ChildProcess;
  /** `progress`, `ended` with an Error, and the answer of each call by its number. */
  private readonly events = new EventEmitter().setMaxListeners(0);
  private output = '';
  private calls = 0;
  private end: Error | undefined;

  private constructor(
    private readonly label: string,
    adapterUrl: string,
  ) {
    this.process = fork(PROGRAM, [adapterUrl], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      // So that no system is slowed down by the terminal's or a debugger's settings of this process.
      execArgv: [],
    });
    alive.add(this);
    for (const output of [this.process.stdout!, this.process.stderr!])
      output.setEncoding('utf8').on('data', (text: string) => {
        this.output = (this.output + text).slice(-2000);
      });
    this.process.on('message', (message: Message) => this.hear(message));
    this.process.on('exit', (code, signal) => {
      alive.delete(this);
      this.end = new Error(`${label} ended with ${code ?? signal}: ${this.output.trim()}`);
      this.events.emit('ended', this.end);
    });
  }

  static async start({ label, adapterUrl }: Contender): Promise<Agent> {
    const agent = new Agent(label, adapterUrl);
    await agent.until('ready', DEFAULT_DEADLINE_MS);
    return agent;
  }

  async call<K extends keyof Commands>(
    name: K,
    asked?: Asked<K>,
    deadlineMs = DEFAULT_DEADLINE_MS,
  ): Promise<Answer<K>> {
    const id = ++this.calls;
    const answered = this.until(`answer ${id}`, deadlineMs, name);
    // If it has exited, "answered" reports that.
    this.process.send({ id, name, asked: asked ?? {} }, () => {});
    const { result, error } = (await answered) as Message;
    if (error !== undefined) throw new Error(`${this.label}: ${error}`);
    return result as Answer<K>;
  }

  /** Resolves when this worker and the others have begun so many jobs. */
  async begun(jobs: number, deadlineMs: number, others: Agent[] = []): Promise<void> {
    const all = [this, ...others];
    const total = () => all.reduce((sum, agent) => sum + agent.jobs, 0);
    const deadline = AbortSignal.timeout(deadlineMs);
    while (total() < jobs) {
      const turn = new AbortController();
      const signal = AbortSignal.any([deadline, turn.signal]);
      try {
        await Promise.race(all.map((agent) => agent.next('progress', signal)));
      } catch (error) {
        if (!deadline.aborted) throw error;
        throw new Error(
          `${this.label}: ${total()} of ${jobs} jobs begun within ${deadlineMs / 1000} s`,
          { cause: error },
        );
      } finally {
        turn.abort();
      }
    }
  }

  async stop(): Promise<void> {
    if (this.end) return;
    const ended = once(this.events, 'ended');
    // Nothing it does from now on is measured, and a graceful end takes some contenders many seconds.
    this.process.kill('SIGKILL');
    await ended;
  }

  private hear(message: Message): void {
    if (message.ready) this.events.emit('ready');
    else if (message.progress !== undefined) {
      this.jobs = message.progress;
      this.events.emit('progress');
    } else this.events.emit(`answer ${message.id}`, message);
  }

  private async until(event: string, deadlineMs: number, doing = event): Promise<unknown> {
    const deadline = AbortSignal.timeout(deadlineMs);
    try {
      return await this.next(event, deadline);
    } catch (error) {
      if (!deadline.aborted) throw error;
      throw new Error(`${this.label}: no end of "${doing}" within ${deadlineMs / 1000} s`, {
        cause: error,
      });
    }
  }

  private next(event: string, signal: AbortSignal): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.end) return reject(this.end);
      const done = (settle: () => void) => {
        this.events.off(event, onEvent).off('ended', onEnd);
        signal.removeEventListener('abort', onAbort);
        settle();
      };
      const onEvent = (payload: unknown) => done(() => resolve(payload));
      const onEnd = (error: Error) => done(() => reject(error));
      const onAbort = () => done(() => reject(signal.reason as Error));
      this.events.on(event, onEvent).on('ended', onEnd);
      signal.addEventListener('abort', onAbort);
    });
  }
}

export const stopAllAgents = () => Promise.all([...alive].map((agent) => agent.stop()));
