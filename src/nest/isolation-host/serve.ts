import { AsyncLocalStorage } from 'node:async_hooks';
import { carryOut } from '../../lifecycle/run/execute-handler.js';
import { linesTo } from '../../lifecycle/run/handler-output.js';
import { JobHandlerNotFoundError } from '../../job/errors.js';
import { JobEvents } from '../../job/events.js';
import type { ExecutionLogger } from '../../job/job-execution.js';
import type { Outcome } from '../../job/outcome.js';
import { plainError } from '../../job/error-to-plain.js';
import { storableOutput } from '../../job/storable-output.js';
import {
  sessionName,
  TURN_MS,
  type HostedEnd,
  type HostNews,
  type HostOrder,
  type HostSetup,
} from '../../isolation/host-messages.js';
import { nameSessions } from '../../database/connection/session-names.js';
import { bootHost, type BootedHost } from './boot.js';
import { HostedProcess } from './hosted-process.js';
import { enterHost } from './inside.js';

/** The way to the node. */
export interface NodeLink {
  /** Resolves when it is on its way, whatever becomes of this host then. */
  send(news: HostNews): Promise<void>;
  hear(listener: (order: HostOrder) => void): void;
  /** Ends the host. */
  exit(code: number): void;
}

const FAILED = 70;

/** Boots the app's module, then runs one job after the other. */
export async function serve(setup: HostSetup, link: NodeLink): Promise<void> {
  enterHost(setup);
  const leave = async (news: HostNews) => {
    await link.send(news);
    link.exit(FAILED);
  };
  const running = new AsyncLocalStorage<string>();
  let jobs: HostedJobs | undefined;
  const stray = (thrown: unknown) => {
    const current = jobs?.current?.jobRunId ?? null;
    const jobRunId = running.getStore() ?? current;
    const news = {
      news: 'stray',
      jobRunId,
      error: plainError(thrown),
    } as const;
    // What an earlier job left behind does not end the one of now.
    if (current !== null && jobRunId !== current) void link.send(news);
    else void leave(news);
  };
  process.on('uncaughtException', stray);
  process.on('unhandledRejection', stray);
  let host: BootedHost;
  try {
    host = await bootHost(setup);
  } catch (error) {
    return leave({ news: 'notReady', error: plainError(error) });
  }
  const hosted = new HostedJobs(host, setup.schema, link, running);
  jobs = hosted;
  for (const dataSource of host.dataSources)
    nameSessions(dataSource, {
      most: setup.connections,
      name: () => hosted.sessionName,
    });
  link.hear((order) => void hosted.take(order));
  await link.send({ news: 'ready', codes: host.bildad.handlers.codes() });
}

class HostedJobs {
  current: HostedProcess | undefined;
  private readonly events = new JobEvents();

  constructor(
    private readonly host: BootedHost,
    private readonly schema: string,
    private readonly link: NodeLink,
    private readonly running: AsyncLocalStorage<string>,
  ) {
    this.events.on('run.started', ({ jobRunId }) => link.send({ news: 'started', jobRunId }));
    this.events.on('run.progress', ({ jobRunId, fraction, message }) =>
      link.send({
        news: 'progress',
        jobRunId,
        fraction,
        ...(message !== undefined && { message }),
      }),
    );
    this.events.on('run.stream', ({ jobRunId, chunk }) =>
      link.send({
        news: 'stream',
        jobRunId,
        ...(chunk !== undefined && { chunk }),
      }),
    );
  }

  get sessionName(): string {
    return sessionName(this.schema, this.current?.jobRunId ?? 'idle');
  }

  /** Never rejects. */
  async take(order: HostOrder): Promise<void> {
    switch (order.order) {
      case 'run':
        return this.run(order);
      case 'stop':
        return void this.current?.stop(order.reason);
      case 'fence':
        return this.current?.fence(order.why);
      case 'close':
        await this.host.app.close().catch(() => undefined);
        return this.link.exit(0);
    }
  }

  private async run({ run, nodeId }: Extract<HostOrder, { order: 'run' }>): Promise<void> {
    const job = new HostedProcess(run);
    this.current = job;
    const turning = setInterval(
      () =>
        void this.link.send({
          news: 'turn',
          heapBytes: process.memoryUsage().heapUsed,
        }),
      TURN_MS,
    );
    await this.running.run(run.jobRunId, () => this.carryOut(job, nodeId));
    clearInterval(turning);
    this.current = undefined;
    await this.link.send({ news: 'ended', end: asEnd(job) });
  }

  private async carryOut(job: HostedProcess, nodeId: string): Promise<void> {
    const { templateCode } = job.run;
    const handler = this.host.bildad.handlers.get(templateCode);
    if (!handler)
      return job.settle({
        kind: 'failed',
        error: new JobHandlerNotFoundError(templateCode),
      });
    const { contexts, extensions } = this.host.bildad;
    const transactions = this.host.bildad.transactions.claimedBy(nodeId);
    const work = () =>
      carryOut(job, handler, {
        contexts,
        events: this.events,
        loggerFor: ({ jobRunId }) => this.loggerOf(jobRunId),
        transactions: {
          around: (...given) => transactions.around(...given),
          complete: async (...given) => {
            await transactions.complete(...given);
            await this.tellWritten(job);
          },
        },
      });
    const { active: around } = extensions.aroundRun;
    await (around ? around(job, handler, work) : work());
  }

  /** Its node is not to take the run for closed by somebody else while the handler goes on. */
  private tellWritten({ jobRunId, written }: HostedProcess): Promise<void> {
    return this.link.send({
      news: 'written',
      jobRunId,
      output: storableOutput(written!.output),
    });
  }

  private loggerOf(jobRunId: string): ExecutionLogger {
    return linesTo(
      (level, message) => void this.link.send({ news: 'log', jobRunId, level, message }),
    );
  }
}

function asEnd({ done, written }: HostedProcess): HostedEnd {
  const end = outcomeAsEnd(done!);
  if (written) end.written = { ...written, output: storableOutput(written.output) };
  return end;
}

function outcomeAsEnd(outcome: Outcome): HostedEnd {
  switch (outcome.kind) {
    case 'completed':
      return { kind: 'completed', output: storableOutput(outcome.output) };
    case 'snoozed':
    case 'cancelled':
      return outcome;
    case 'failed':
    case 'failedForGood':
    case 'invalidContext':
      return { kind: outcome.kind, error: plainError(outcome.error) };
    default:
      throw new Error(`a handler cannot end as ${outcome.kind}`);
  }
}
