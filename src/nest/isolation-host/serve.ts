import type { DynamicModule, INestApplicationContext, Type } from '@nestjs/common';
import { ModulesContainer, NestFactory } from '@nestjs/core';
import { ScheduleModule } from '@nestjs/schedule';
import { DataSource } from 'typeorm';
import { FOR_ROOT } from '../../options/settings.js';
import { BildadConfigError, JobHandlerNotFoundError } from '../../job/errors.js';
import {
  type HostSetup,
  sessionName,
  TURN_MS,
  type HostedEnd,
  type HostNews,
  type HostOrder,
} from '../../isolation/host-protocol.js';
import { BILDAD_RUNTIME, type BildadRuntime } from '../module/runtime.js';
import type { Outcome } from '../../job/outcome.js';
import { JobProcess } from '../../lifecycle/run/job-process.js';
import { AsyncLocalStorage } from 'node:async_hooks';
import { executeHandler } from '../../lifecycle/run/execute-handler.js';
import { lineLogger } from '../../lifecycle/run/handler-output.js';
import { JobEvents } from '../../job/events.js';
import type { ExecutionLogger } from '../../job/job-handler.js';
import { errorToPlain } from '../../job/plain-error.js';
import { storableOutput } from '../../job/storable-output.js';
import { nameSessions } from '../../database/connection/session-names.js';
import { enterHost } from './host-environment.js';

export interface BootedHost {
  app: INestApplicationContext;
  bildad: BildadRuntime;
  dataSources: DataSource[];
}

/**
 * Boots the app's module without its schedules.
 * @throws BildadConfigError; the error of the module
 */
export async function bootHost(setup: HostSetup): Promise<BootedHost> {
  stopSchedules();
  const app = await NestFactory.createApplicationContext(await moduleOf(setup), {
    logger: ['error', 'warn'],
    abortOnError: false,
  });
  try {
    const bildad = runtimeOf(app, setup);
    return { app, bildad, dataSources: instancesOf(app, DataSource) };
  } catch (error) {
    await app.close();
    throw error;
  }
}

/** The app's @Cron, @Interval and @Timeout methods run in the app only. */
function stopSchedules(): void {
  const forRoot = ScheduleModule.forRoot.bind(ScheduleModule);
  const none = () => forRoot({ cronJobs: false, intervals: false, timeouts: false });
  ScheduleModule.forRoot = none;
  ScheduleModule.forRootAsync = none;
}

async function moduleOf({ moduleUrl, exportName }: HostSetup): Promise<Type | DynamicModule> {
  let loaded: Record<string, unknown>;
  try {
    loaded = (await import(moduleUrl)) as Record<string, unknown>;
  } catch (error) {
    throw new BildadConfigError(
      'isolation.module',
      'must be the URL of a module that can be imported',
      { got: moduleUrl, where: FOR_ROOT, cause: error },
    );
  }
  // Exports of a CommonJS module may be under `default` only.
  const found =
    loaded[exportName] ?? (loaded['default'] as Record<string, unknown> | undefined)?.[exportName];
  if (!isModule(found))
    throw new BildadConfigError(
      'isolation.export',
      `must be the name of a Nest module, a class or a dynamic one, that ${moduleUrl} exports`,
      { got: exportName, where: FOR_ROOT },
    );
  return found;
}

const isModule = (found: unknown): found is Type | DynamicModule =>
  typeof found === 'function' || (typeof found === 'object' && found !== null && 'module' in found);

function runtimeOf(
  app: INestApplicationContext,
  { schema, engineName, moduleUrl }: HostSetup,
): BildadRuntime {
  const found = providersOf(app)
    .filter(({ token }) => token === BILDAD_RUNTIME)
    .map(({ instance }) => instance as BildadRuntime)
    .find(({ store, settings }) => store.tables.schema === schema && settings.name === engineName);
  if (!found)
    throw new BildadConfigError(
      'isolation.module',
      `must import BildadModule with the engine "${engineName}" in the schema "${schema}"`,
      { got: moduleUrl, where: FOR_ROOT },
    );
  return found;
}

const providersOf = (app: INestApplicationContext) =>
  [...app.get(ModulesContainer, { strict: false }).values()].flatMap(({ providers }) => [
    ...providers.values(),
  ]);

function instancesOf<T>(
  app: INestApplicationContext,
  type: abstract new (...args: any[]) => T,
): T[] {
  const found = providersOf(app)
    .map(({ instance }) => instance)
    .filter((instance): instance is T => instance instanceof type);
  return [...new Set(found)];
}

/**
 * A run in its host. It reports the handler's own outcome; the node decides what it means after a
 * stop.
 */
export class HostedProcess extends JobProcess {
  handlerOutcome: Outcome | undefined;

  override settle(outcome: Outcome): void {
    this.handlerOutcome = outcome;
    super.settle(outcome);
  }
}

/** The connection to the node. */
export interface NodeLink {
  /** Resolves when the message will arrive, even if this host ends then. */
  send(news: HostNews): Promise<void>;
  hear(listener: (order: HostOrder) => void): void;
  /** Ends the host. */
  exit(code: number): void;
}

const FAILED = 70;

/** Boots the app's module, then runs jobs one after the other. */
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
      error: errorToPlain(thrown),
    } as const;
    // An error of an earlier job does not end the current one.
    if (current !== null && jobRunId !== current) void link.send(news);
    else void leave(news);
  };
  process.on('uncaughtException', stray);
  process.on('unhandledRejection', stray);
  let host: BootedHost;
  try {
    host = await bootHost(setup);
  } catch (error) {
    return leave({ news: 'notReady', error: errorToPlain(error) });
  }
  const hosted = new HostedJobs(host, setup.schema, link, running);
  jobs = hosted;
  for (const dataSource of host.dataSources)
    nameSessions(dataSource, {
      max: setup.connections,
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
    await this.running.run(run.jobRunId, () => this.execute(job, nodeId));
    clearInterval(turning);
    this.current = undefined;
    await this.link.send({ news: 'ended', end: asEnd(job) });
  }

  private async execute(job: HostedProcess, nodeId: string): Promise<void> {
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
      executeHandler(job, handler, {
        contexts,
        events: this.events,
        loggerFor: ({ jobRunId }) => this.loggerOf(jobRunId),
        transactions: {
          around: (...given) => transactions.around(...given),
          complete: async (...given) => {
            await transactions.complete(...given);
            await this.sendWritten(job);
          },
        },
      });
    const { active: around } = extensions.aroundRun;
    await (around ? around(job, handler, work) : work());
  }

  /** Else the node would take the run for ended by another one while the handler continues. */
  private sendWritten({ jobRunId, written }: HostedProcess): Promise<void> {
    return this.link.send({
      news: 'written',
      jobRunId,
      output: storableOutput(written!.output),
    });
  }

  private loggerOf(jobRunId: string): ExecutionLogger {
    return lineLogger(
      (level, message) => void this.link.send({ news: 'log', jobRunId, level, message }),
    );
  }
}

function asEnd({ handlerOutcome, written }: HostedProcess): HostedEnd {
  const end = outcomeAsEnd(handlerOutcome!);
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
      return { kind: outcome.kind, error: errorToPlain(outcome.error) };
    default:
      throw new Error(`a handler cannot end as ${outcome.kind}`);
  }
}
