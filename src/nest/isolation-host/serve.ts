import type { DynamicModule, INestApplicationContext, Type } from '@nestjs/common';
import { ModulesContainer, NestFactory } from '@nestjs/core';
import { ScheduleModule } from '@nestjs/schedule';
import { DataSource } from 'typeorm';
import { FOR_ROOT } from '../../options/settings.js';
import { BildadConfigError, JobHandlerNotFoundError } from '../../job/errors.js';
import {
  type HostSetup,
  sessionName,
  ALIVE_INTERVAL_MS,
  type HostedEnd,
  type HostMessage,
  type HostCommand,
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
 * A run in its host. It reports the handler's own outcome. The node decides what the outcome of a
 * stopped run is.
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
  send(message: HostMessage): Promise<void>;
  onMessage(listener: (command: HostCommand) => void): void;
  /** Ends the host. */
  exit(code: number): void;
}

const EXIT_CODE_FAILED = 70;

/** Boots the app's module, then runs jobs one after the other. */
export async function serve(setup: HostSetup, link: NodeLink): Promise<void> {
  enterHost(setup);
  const sendAndExit = async (message: HostMessage) => {
    await link.send(message);
    link.exit(EXIT_CODE_FAILED);
  };
  const running = new AsyncLocalStorage<string>();
  let jobs: HostedJobs | undefined;
  const reportStrayError = (thrown: unknown) => {
    const current = jobs?.current?.jobRunId ?? null;
    const jobRunId = running.getStore() ?? current;
    const message = {
      type: 'strayError',
      jobRunId,
      error: errorToPlain(thrown),
    } as const;
    // An error of an earlier job does not end the current one.
    if (current !== null && jobRunId !== current) void link.send(message);
    else void sendAndExit(message);
  };
  process.on('uncaughtException', reportStrayError);
  process.on('unhandledRejection', reportStrayError);
  let host: BootedHost;
  try {
    host = await bootHost(setup);
  } catch (error) {
    return sendAndExit({ type: 'notReady', error: errorToPlain(error) });
  }
  const hosted = new HostedJobs(host, setup.schema, link, running);
  jobs = hosted;
  for (const dataSource of host.dataSources)
    nameSessions(dataSource, {
      max: setup.connections,
      name: () => hosted.sessionName,
    });
  link.onMessage((command) => void hosted.handleCommand(command));
  await link.send({ type: 'ready', codes: host.bildad.handlers.codes() });
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
    this.events.on('run.started', ({ jobRunId }) => link.send({ type: 'started', jobRunId }));
    this.events.on('run.progress', ({ jobRunId, fraction, message }) =>
      link.send({
        type: 'progress',
        jobRunId,
        fraction,
        ...(message !== undefined && { message }),
      }),
    );
    this.events.on('run.stream', ({ jobRunId, chunk }) =>
      link.send({
        type: 'stream',
        jobRunId,
        ...(chunk !== undefined && { chunk }),
      }),
    );
  }

  get sessionName(): string {
    return sessionName(this.schema, this.current?.jobRunId ?? 'idle');
  }

  /** Never rejects. */
  async handleCommand(command: HostCommand): Promise<void> {
    switch (command.command) {
      case 'run':
        return this.run(command);
      case 'stop':
        return void this.current?.stop(command.reason);
      case 'fence':
        return this.current?.fence(command.why);
      case 'close':
        await this.host.app.close().catch(() => undefined);
        return this.link.exit(0);
    }
  }

  private async run({ run, nodeId }: Extract<HostCommand, { command: 'run' }>): Promise<void> {
    const job = new HostedProcess(run);
    this.current = job;
    const aliveTimer = setInterval(
      () =>
        void this.link.send({
          type: 'alive',
          heapBytes: process.memoryUsage().heapUsed,
        }),
      ALIVE_INTERVAL_MS,
    );
    await this.running.run(run.jobRunId, () => this.execute(job, nodeId));
    clearInterval(aliveTimer);
    this.current = undefined;
    await this.link.send({ type: 'ended', end: toHostedEnd(job) });
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
    const transactions = this.host.bildad.transactions.forNode(nodeId);
    const execute = () =>
      executeHandler(job, handler, {
        contexts,
        events: this.events,
        loggerFor: ({ jobRunId }) => this.loggerFor(jobRunId),
        transactions: {
          run: (...args) => transactions.run(...args),
          complete: async (...args) => {
            await transactions.complete(...args);
            await this.sendWritten(job);
          },
        },
      });
    const { active: around } = extensions.aroundRun;
    await (around ? around(job, handler, execute) : execute());
  }

  /** Without it the node would assume that another node ended the run, while the handler still works. */
  private sendWritten({ jobRunId, written }: HostedProcess): Promise<void> {
    return this.link.send({
      type: 'written',
      jobRunId,
      output: storableOutput(written!.output),
    });
  }

  private loggerFor(jobRunId: string): ExecutionLogger {
    return lineLogger(
      (level, message) => void this.link.send({ type: 'log', jobRunId, level, message }),
    );
  }
}

function toHostedEnd({ handlerOutcome, written }: HostedProcess): HostedEnd {
  const end = outcomeToEnd(handlerOutcome!);
  if (written) end.written = { ...written, output: storableOutput(written.output) };
  return end;
}

function outcomeToEnd(outcome: Outcome): HostedEnd {
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
