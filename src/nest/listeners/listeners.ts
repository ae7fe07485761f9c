import { Injectable } from '@nestjs/common';
import { DiscoveryService, MetadataScanner } from '@nestjs/core';
import { BildadConfigError } from '../../job/errors.js';
import { EVENT_TRAITS } from '../../job/event-delivery.js';
import type { JobEventMap } from '../../job/events.js';
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
import { Pipelines } from '../pipeline/pipeline.js';
import type { BildadRuntime } from '../module/runtime.js';
import { listenerCall, type ListenerMethod } from './call-listener.js';
import { ListenerQueue } from './listener-queue.js';
import {
  declaredListeners,
  type DeclaredListener,
  type OnJobEventOptions,
} from './on-job-event.decorator.js';

const readEvent = oneOf(...Object.keys(EVENT_TRAITS));
const readOptions = group({
  code: (value) => value,
  engine: optional(string()),
  from: withDefault(oneOf('here', 'cluster'), 'here'),
} satisfies SchemaOf<OnJobEventOptions>);

/** What calls may take that are left when a shutdown took its time. */
const LEAST_DRAIN_MS = 1_000;

interface Listener {
  /** For people: where it stands. */
  name: string;
  event: keyof JobEventMap;
  code: string | null;
  isOfCluster: boolean;
  call: (payload: unknown) => unknown;
}

/** The `@OnJobEvent` methods of the whole app, of providers and controllers, and their calls. */
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

  /** Those of this engine hear its events from now on. @throws BildadConfigError naming the wrong one */
  attach({ events, clusterEvents, settings }: BildadRuntime): void {
    for (const listener of this.find(settings)) {
      const { name, event, code, call } = listener;
      const queue = new ListenerQueue(call, (error) => {
        // What listens to errors, and fails itself, must not go in circles.
        if (event !== 'engine.error')
          events.emit('engine.error', { doing: `${name} of ${event}`, error });
      });
      this.queues.push(queue);
      const hear = (payload: JobEventMap[keyof JobEventMap][0]) => {
        // Its own: what it does to it is nothing to others.
        if (code === null || codeOf(payload) === code) queue.add({ ...payload });
      };
      this.offs.push(events.on(event, hear));
      if (listener.isOfCluster) clusterEvents.subscribe(event, code, hear);
    }
  }

  /** A shutdown begins. */
  closing(drainMs: number): void {
    this.drainUntil = performance.now() + drainMs;
  }

  /** Gives calls that are left what is left of the time to drain. */
  async drain(): Promise<void> {
    for (const off of this.offs.splice(0)) off();
    const left = Math.max(this.drainUntil - performance.now(), LEAST_DRAIN_MS);
    await waitAtMost(left, Promise.all(this.queues.map((queue) => queue.empty())));
    for (const queue of this.queues) queue.close();
  }

  private find({ name: engineName, globalEnhancers }: Settings): Listener[] {
    const found: Listener[] = [];
    const seen = new Set<unknown>();
    const wrappers = [...this.discovery.getProviders(), ...this.discovery.getControllers()];
    for (const wrapper of wrappers) {
      const { metatype, instance } = wrapper;
      const made = instance as object | undefined;
      const prototype: unknown = made ? Object.getPrototypeOf(made) : metatype?.prototype;
      if (typeof prototype !== 'object' || prototype === null) continue;
      // A class that two modules provide listens once, and so does what goes by two names.
      const key = wrapper.token === metatype ? metatype : (made ?? wrapper);
      if (seen.has(key) || (made && seen.has(made))) continue;
      for (const method of this.scanner.getAllMethodNames(prototype)) {
        const declared = declaredListeners((prototype as Record<string, unknown>)[method]);
        if (declared.length > 0) seen.add(key).add(made ?? wrapper);
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

  /** Undefined where it is another engine's. */
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
    const isOurs = engine === undefined || engine === engineName;
    return isOurs ? listener : undefined;
  }
}

/** @throws BildadConfigError also for a class that is not there yet, as in a circle of imports */
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
