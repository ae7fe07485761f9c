import type { HostKind } from '../job/job-handler.js';
import type { ClaimedRun } from '../job/run-facts.js';
import { errorFromPlain } from '../job/plain-error.js';
import { OneTimeEvent } from '../concurrency/one-time-event.js';
import type { HostLink } from './host-protocol.js';
import {
  ALIVE_INTERVAL_MS,
  type HostedEnd,
  type HostMessage,
  type HostCommand,
} from './host-protocol.js';

/** The end of a run in a host: of its handler, or of the host with the reason. */
export type HostEnd = HostedEnd | { kind: 'hostDied'; why: string };

/** A message about the current run. */
export type RunMessage = Extract<
  HostMessage,
  { type: 'started' | 'progress' | 'log' | 'stream' | 'written' }
>;

/** A job for a host, and the receiver of its messages. */
export interface HostedWork {
  run: ClaimedRun;
  nodeId: string;
  onMessage(message: RunMessage): void;
}

interface Job {
  work: HostedWork;
  ended: OneTimeEvent<HostEnd>;
}

/** A thread or process that has booted the app's module, and runs one job at a time. */
export class JobHost {
  /**
   * Resolves with the codes of its handlers when it can run jobs. Rejects when it could not boot.
   */
  readonly ready: Promise<string[]>;
  /** Resolves when it has ended. */
  readonly exited: Promise<string>;
  private readonly link: HostLink;
  private readonly booted = new OneTimeEvent<string[] | Error>();
  private job: Job | undefined;
  private spent = false;
  private lastAliveAt = 0;
  private heapBytes: number | null = null;

  /** @param onStrayError receives uncaught errors that the current job did not cause */
  constructor(
    start: (onMessage: (message: HostMessage) => void) => HostLink,
    private readonly onStrayError: (error: unknown) => void,
  ) {
    this.link = start((message) => this.handleMessage(message));
    this.exited = this.link.exited;
    this.ready = this.booted.promise.then((result) => {
      if (result instanceof Error) throw result;
      return result;
    });
    void this.exited.then((why) => {
      this.spent = true;
      this.booted.fire(new Error(why));
      this.endJob({ kind: 'hostDied', why });
    });
  }

  get kind(): HostKind {
    return this.link.kind;
  }

  /** The host must not run another job. */
  get isSpent(): boolean {
    return this.spent;
  }

  /** Never rejects. */
  run(work: HostedWork): Promise<HostEnd> {
    const ended = new OneTimeEvent<HostEnd>();
    this.job = { work, ended };
    this.lastAliveAt = performance.now();
    const { run, nodeId } = work;
    this.link.send({ command: 'run', run, nodeId });
    // It died between the pool and this call.
    if (this.spent) void this.exited.then((why) => this.endJob({ kind: 'hostDied', why }));
    return ended.promise;
  }

  /** Tells the handler to stop. */
  sendStop(command: Extract<HostCommand, { command: 'stop' | 'fence' }>): void {
    this.link.send(command);
  }

  facts() {
    const { kind, id } = this.link;
    const usage = this.link.usage();
    const silentMs = performance.now() - this.lastAliveAt;
    return {
      pid: kind === 'thread' ? process.pid : id,
      threadId: kind === 'thread' ? id : 0,
      memoryBytes: usage?.memoryBytes ?? this.heapBytes,
      cpuMs: usage?.cpuMs ?? null,
      eventLoopLagMs: Math.round(Math.max(silentMs - ALIVE_INTERVAL_MS, 0)),
    };
  }

  kill(): Promise<void> {
    this.spent = true;
    return this.link.kill();
  }

  /** Asks it to close its module and exit. */
  close(): void {
    this.spent = true;
    this.link.send({ command: 'close' });
  }

  private handleMessage(message: HostMessage): void {
    switch (message.type) {
      case 'ready':
        return this.booted.fire(message.codes);
      case 'notReady':
        return this.booted.fire(asError(errorFromPlain(message.error)));
      case 'alive':
        this.lastAliveAt = performance.now();
        this.heapBytes = message.heapBytes;
        return;
      case 'ended':
        return this.endJob(message.end);
      case 'strayError':
        this.spent = true;
        if (this.job && message.jobRunId === this.job.work.run.jobRunId)
          return this.endJob({ kind: 'failed', error: message.error });
        return this.onStrayError(errorFromPlain(message.error));
      default:
        // Work that an ended job left behind may still send messages.
        if (message.jobRunId === this.job?.work.run.jobRunId) this.job.work.onMessage(message);
    }
  }

  private endJob(end: HostEnd): void {
    const { job } = this;
    this.job = undefined;
    job?.ended.fire(end);
  }
}

/** A module may throw any value. */
const asError = (thrown: unknown): Error =>
  thrown instanceof Error ? thrown : new Error(String(thrown));
