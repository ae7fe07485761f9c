import type { HostKind } from '../job/job-handler.js';
import type { ClaimedRun } from '../job/run-facts.js';
import { errorFromPlain } from '../job/plain-error.js';
import { OneTimeEvent } from '../concurrency/one-time-event.js';
import type { HostLink } from './host-protocol.js';
import { TURN_MS, type HostedEnd, type HostNews, type HostOrder } from './host-protocol.js';

/** The end of a run in a host: of its handler, or of the host with the reason. */
export type HostEnd = HostedEnd | { kind: 'hostDied'; why: string };

/** A job for a host, and the receiver of its messages. */
export interface HostedWork {
  run: ClaimedRun;
  nodeId: string;
  heard(
    news: Extract<HostNews, { news: 'started' | 'progress' | 'log' | 'stream' | 'written' }>,
  ): void;
}

interface Job {
  work: HostedWork;
  over: OneTimeEvent<HostEnd>;
}

/** A thread or process that has booted the app's module, and runs one job at a time. */
export class JobHost {
  /**
   * Resolves with the codes of its handlers when it can run jobs. Rejects when it could not boot.
   */
  readonly ready: Promise<string[]>;
  /** Resolves when it has ended. */
  readonly gone: Promise<string>;
  private readonly link: HostLink;
  private readonly booted = new OneTimeEvent<string[] | Error>();
  private job: Job | undefined;
  private isWorn = false;
  private turnedAt = 0;
  private heapBytes: number | null = null;

  /** @param strayed receives uncaught errors that the current job did not cause */
  constructor(
    start: (hear: (news: HostNews) => void) => HostLink,
    private readonly strayed: (error: unknown) => void,
  ) {
    this.link = start((news) => this.hear(news));
    this.gone = this.link.gone;
    this.ready = this.booted.promise.then((result) => {
      if (result instanceof Error) throw result;
      return result;
    });
    void this.gone.then((why) => {
      this.isWorn = true;
      this.booted.fire(new Error(why));
      this.end({ kind: 'hostDied', why });
    });
  }

  get kind(): HostKind {
    return this.link.kind;
  }

  /** It must not be used again. */
  get worn(): boolean {
    return this.isWorn;
  }

  /** Never rejects. */
  run(work: HostedWork): Promise<HostEnd> {
    const over = new OneTimeEvent<HostEnd>();
    this.job = { work, over };
    this.turnedAt = performance.now();
    const { run, nodeId } = work;
    this.link.send({ order: 'run', run, nodeId });
    // It died between the pool and this call.
    if (this.isWorn) void this.gone.then((why) => this.end({ kind: 'hostDied', why }));
    return over.promise;
  }

  tell(order: Extract<HostOrder, { order: 'stop' | 'fence' }>): void {
    this.link.send(order);
  }

  facts() {
    const { kind, id } = this.link;
    const usage = this.link.usage();
    const silentMs = performance.now() - this.turnedAt;
    return {
      pid: kind === 'thread' ? process.pid : id,
      threadId: kind === 'thread' ? id : 0,
      memoryBytes: usage?.memoryBytes ?? this.heapBytes,
      cpuMs: usage?.cpuMs ?? null,
      eventLoopLagMs: Math.round(Math.max(silentMs - TURN_MS, 0)),
    };
  }

  kill(): Promise<void> {
    this.isWorn = true;
    return this.link.kill();
  }

  /** Asks it to close its module and exit. */
  close(): void {
    this.isWorn = true;
    this.link.send({ order: 'close' });
  }

  private hear(news: HostNews): void {
    switch (news.news) {
      case 'ready':
        return this.booted.fire(news.codes);
      case 'notReady':
        return this.booted.fire(asError(errorFromPlain(news.error)));
      case 'turn':
        this.turnedAt = performance.now();
        this.heapBytes = news.heapBytes;
        return;
      case 'ended':
        return this.end(news.end);
      case 'stray':
        this.isWorn = true;
        if (this.job && news.jobRunId === this.job.work.run.jobRunId)
          return this.end({ kind: 'failed', error: news.error });
        return this.strayed(errorFromPlain(news.error));
      default:
        // Work that an ended job left behind may still send messages.
        if (news.jobRunId === this.job?.work.run.jobRunId) this.job.work.heard(news);
    }
  }

  private end(end: HostEnd): void {
    const { job } = this;
    this.job = undefined;
    job?.over.fire(end);
  }
}

/** A module may throw any value. */
const asError = (thrown: unknown): Error =>
  thrown instanceof Error ? thrown : new Error(String(thrown));
