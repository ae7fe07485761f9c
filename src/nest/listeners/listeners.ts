import { AsyncLocalStorage } from 'node:async_hooks';
import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';
import type { JobEventMap } from '../../job/events.js';
import { isShared, scopedInstance } from '../pipeline/scoped-instance.js';
import { Pipelines } from '../pipeline/pipeline.js';
import { Injectable } from '@nestjs/common';
import { DiscoveryService, MetadataScanner } from '@nestjs/core';
import { BildadConfigError } from '../../job/errors.js';
import { EVENT_TRAITS } from '../../job/event-delivery.js';
import {
  group,
  oneOf,
  optional,
  string,
  withDefault,
  type SchemaOf,
} from '../../options/reader.js';
import type { Settings } from '../../options/settings.js';
import { waitAtMost } from '../../concurrency/timers.js';
import { jobOptionsOf } from '../handlers/bildad-job.decorator.js';
import type { BildadRuntime } from '../module/runtime.js';
import {
  declaredListeners,
  type DeclaredListener,
  type OnJobEventOptions,
} from './on-job-event.decorator.js';

/** Concurrent calls of one listener. */
const MAX_CONCURRENT_CALLS = 100;
/** Waiting events of one listener; more are dropped. */
const MAX_WAITING = 10_000;
/** Calls started in one turn of the event loop. */
const CALLS_PER_TURN = 100;

/** Listeners run outside the transaction or request that caused the event. */
const outsideOfCaller = AsyncLocalStorage.snapshot();

/**
 * The calls of one listener. They start in order, at least one event-loop turn after the event. A
 * call that never ends only uses one of the concurrent calls. A slow listener buffers at most
 * 10,000 events.
 */
export class ListenerQueue {
  private waiting: unknown[] = [];
  private runningCalls = 0;
  private isScheduled = false;
  private hasOverflown = false;
  private idle: (() => void)[] = [];
  private isClosed = false;

  /**
   * @param call the listener; its errors are reported
   * @param report called once for each overflow and each error
   */
  constructor(
    private readonly call: (payload: unknown) => unknown,
    private readonly report: (error: unknown) => void,
  ) {}

  add(payload: unknown): void {
    if (this.isClosed) return;
    if (this.waiting.length >= MAX_WAITING) {
      if (this.hasOverflown) return;
      this.hasOverflown = true;
      this.report(new Error(`events are dropped: ${MAX_WAITING} are waiting already`));
      return;
    }
    this.waiting.push(payload);
    this.scheduleCalls();
  }

  /** Resolves when no event waits and no call is running. */
  waitUntilIdle(): Promise<void> {
    return this.isEmpty ? Promise.resolve() : new Promise((resolve) => this.idle.push(resolve));
  }

  /** Stops all further calls. */
  close(): void {
    this.isClosed = true;
    this.waiting = [];
  }

  private get isEmpty(): boolean {
    return this.waiting.length === 0 && this.runningCalls === 0;
  }

  private scheduleCalls(): void {
    if (this.isScheduled || this.waiting.length === 0 || this.runningCalls >= MAX_CONCURRENT_CALLS)
      return;
    this.isScheduled = true;
    outsideOfCaller(() => setImmediate(() => this.startCalls()));
  }

  private startCalls(): void {
    this.isScheduled = false;
    const room = Math.min(CALLS_PER_TURN, MAX_CONCURRENT_CALLS - this.runningCalls);
    for (const payload of this.waiting.splice(0, room)) void this.callListener(payload);
    if (this.waiting.length < MAX_WAITING / 2) this.hasOverflown = false;
    this.resolveIfIdle();
    this.scheduleCalls();
  }

  /** Never rejects. */
  private async callListener(payload: unknown): Promise<void> {
    this.runningCalls++;
    try {
      await this.call(payload);
    } catch (error) {
      this.report(error);
    }
    this.runningCalls--;
    this.resolveIfIdle();
    this.scheduleCalls();
  }

  private resolveIfIdle(): void {
    if (!this.isEmpty) return;
    for (const resolve of this.idle.splice(0)) resolve();
  }
}

/** The value of `getType()` of a listener's ExecutionContext; its one argument is the payload. */
export const EVENT_CONTEXT_TYPE = 'bildad:event';

/**
 * The object that `@Inject(REQUEST)` provides in a REQUEST-scoped listener and its dependencies.
 */
export interface JobEventRequest<E extends keyof JobEventMap = keyof JobEventMap> {
  event: E;
  payload: JobEventMap[E][0];
}

export interface ListenerMethod {
  event: keyof JobEventMap;
  wrapper: InstanceWrapper;
  target: new (...args: never[]) => object;
  methodName: string;
}

type Call = (payload: unknown) => unknown;
type Methods = Record<string, Call>;

/** Calls a listener with its enhancers. A scoped listener gets an instance for each event. */
function listenerCall(
  pipelines: Pipelines,
  { event, wrapper, target, methodName }: ListenerMethod,
  globals: boolean,
): Call {
  const pipeline = pipelines.create(
    { wrapper, target, methodName, type: EVENT_CONTEXT_TYPE },
    globals,
  );
  if (!isShared(wrapper))
    return async (payload) => {
      const request = { event, payload };
      const { instance, contextId } = await scopedInstance<object>(wrapper, request);
      return pipeline
        ? pipeline.bind(instance, contextId)(payload)
        : (instance as Methods)[methodName]!(payload);
    };
  const instance = wrapper.instance as object;
  return pipeline?.bind(instance) ?? ((payload) => (instance as Methods)[methodName]!(payload));
}

const readEvent = oneOf(...Object.keys(EVENT_TRAITS));
const readOptions = group({
  code: (value) => value,
  engine: optional(string()),
  from: withDefault(oneOf('here', 'cluster'), 'here'),
} satisfies SchemaOf<OnJobEventOptions>);

/** Remaining calls get this long at a shutdown, however long it has taken. */
const MIN_DRAIN_MS = 1_000;

interface Listener {
  /** For messages: decorator, class and method. */
  name: string;
  event: keyof JobEventMap;
  code: string | null;
  isOfCluster: boolean;
  call: (payload: unknown) => unknown;
}

/** The `@OnJobEvent` methods of all providers and controllers of the app. */
@Injectable()
export class JobEventListeners {
  private readonly scanner = new MetadataScanner();
  private readonly queues: ListenerQueue[] = [];
  private readonly offs: (() => void)[] = [];
  private drainUntil = Infinity;

  constructor(
    private readonly discovery: DiscoveryService,
    private readonly pipelines: Pipelines,
  ) {}

  /** Subscribes the listeners of this engine. @throws BildadConfigError about a wrong one */
  attach({ events, clusterEvents, settings }: BildadRuntime): void {
    for (const listener of this.find(settings)) {
      const { name, event, code, call } = listener;
      const queue = new ListenerQueue(call, (error) => {
        // A failing listener of errors must not cause another error event.
        if (event !== 'engine.error')
          events.emit('engine.error', { doing: `${name} of ${event}`, error });
      });
      this.queues.push(queue);
      const addToQueue = (payload: JobEventMap[keyof JobEventMap][0]) => {
        // A copy, because the listener may change it.
        if (code === null || codeOf(payload) === code) queue.add({ ...payload });
      };
      this.offs.push(events.on(event, addToQueue));
      if (listener.isOfCluster) clusterEvents.subscribe(event, code, addToQueue);
    }
  }

  /** A shutdown begins. */
  startDrain(drainMs: number): void {
    this.drainUntil = performance.now() + drainMs;
  }

  /** Waits for remaining calls, for the rest of the drain time. */
  async drain(): Promise<void> {
    for (const off of this.offs.splice(0)) off();
    const left = Math.max(this.drainUntil - performance.now(), MIN_DRAIN_MS);
    await waitAtMost(left, Promise.all(this.queues.map((queue) => queue.waitUntilIdle())));
    for (const queue of this.queues) queue.close();
  }

  private find({ name: engineName, globalEnhancers }: Settings): Listener[] {
    const found: Listener[] = [];
    const seen = new Set<unknown>();
    const wrappers = [...this.discovery.getProviders(), ...this.discovery.getControllers()];
    for (const wrapper of wrappers) {
      const { metatype, instance } = wrapper;
      const created = instance as object | undefined;
      const prototype: unknown = created ? Object.getPrototypeOf(created) : metatype?.prototype;
      if (typeof prototype !== 'object' || prototype === null) continue;
      // A class in two modules listens once, and so does an instance under two tokens.
      const key = wrapper.token === metatype ? metatype : (created ?? wrapper);
      if (seen.has(key) || (created && seen.has(created))) continue;
      for (const method of this.scanner.getAllMethodNames(prototype)) {
        const declared = declaredListeners((prototype as Record<string, unknown>)[method]);
        if (declared.length > 0) seen.add(key).add(created ?? wrapper);
        for (const one of declared) {
          const className = prototype.constructor.name;
          const listener = this.read(one, `${className}.${method}`, engineName);
          if (!listener) continue;
          const target = prototype.constructor as ListenerMethod['target'];
          const call = listenerCall(
            this.pipelines,
            { event: listener.event, wrapper, target, methodName: method },
            globalEnhancers,
          );
          found.push({ ...listener, call });
        }
      }
    }
    return found;
  }

  /** Undefined for a listener of another engine. */
  private read(
    { event, options }: DeclaredListener,
    where: string,
    engineName: string,
  ): Omit<Listener, 'call'> | undefined {
    const name = `@OnJobEvent of ${where}`;
    readEvent(event, 'event', name);
    const { code, engine, from } = readOptions(options, '', name);
    const { ofJob, travels } = EVENT_TRAITS[event];
    if ('code' in options && !ofJob)
      throw new BildadConfigError(
        'code',
        `is not supported for ${event}, which does not belong to a job`,
        { where: name },
      );
    if (from === 'cluster' && !travels)
      throw new BildadConfigError('from', `must be 'here': ${event} is not sent to other nodes`, {
        got: from,
        where: name,
      });
    const listener = {
      name,
      event,
      code: 'code' in options ? readCode(code, name) : null,
      isOfCluster: from === 'cluster',
    };
    const isForThisEngine = engine === undefined || engine === engineName;
    return isForThisEngine ? listener : undefined;
  }
}

/** @throws BildadConfigError also for a class that a circular import leaves undefined */
function readCode(code: unknown, where: string): string {
  if (typeof code === 'string') return string()(code, 'code', where);
  const options = jobOptionsOf(code);
  if (options) return options.code;
  throw new BildadConfigError(
    'code',
    "must be a template's code, or a class decorated with @BildadJob",
    { got: code, where },
  );
}

const codeOf = (payload: object) => (payload as { templateCode?: string }).templateCode;
