import type { EngineContext } from '../database/engine-context.js';
import { EVENT_TRAITS } from '../job/event-delivery.js';
import type { JobEventMap } from '../job/events.js';
import type { NotificationBus, Topic } from './notification-bus.js';

const SEND_EVERY_MS = 100;
const MAX_PENDING = 2_000;

type EventName = keyof JobEventMap;
type Payload = JobEventMap[EventName][0];

interface Subscription {
  event: EventName;
  /** The template's code; null: events of all templates. */
  code: string | null;
  receive: (payload: never) => void;
}

/** Events from node to node of one engine: at most once, and only those that another node subscribed to. */
export class ClusterEvents {
  private readonly subscriptions: Subscription[] = [];
  private readonly topic: Topic;
  /** Functions that stop forwarding, by event. */
  private readonly forwarded = new Map<EventName, () => void>();
  private isStopped = false;

  constructor(
    private readonly engine: EngineContext,
    bus: NotificationBus,
  ) {
    this.topic = bus.createTopic({
      name: `events of ${engine.settings.name}`,
      doing: 'sending events to other nodes',
      maxPending: MAX_PENDING,
      minIntervalMs: SEND_EVERY_MS,
      receive: (item) => this.receive(item),
      onWanted: (keys) => keys.forEach((key) => this.forward(eventOf(key))),
    });
  }

  /** Calls `receive` with events of other nodes, not of this one, from `start` on. */
  subscribe<E extends EventName>(
    event: E,
    code: string | null,
    receive: (payload: JobEventMap[E][0]) => void,
  ): void {
    this.subscriptions.push({ event, code, receive });
  }

  start(): void {
    for (const { event, code } of this.subscriptions) this.topic.addInterest(keyOf(event, code));
  }

  /** Sends the pending events and stops sending. */
  async stop(): Promise<void> {
    this.isStopped = true;
    for (const stop of this.forwarded.values()) stop();
    this.forwarded.clear();
    await this.topic.close();
  }

  private receive(item: unknown): void {
    if (!Array.isArray(item)) return;
    const [name, payload] = item as [unknown, Payload | null | undefined];
    if (typeof payload !== 'object' || payload === null) return;
    for (const { event, code, receive } of this.subscriptions)
      if (event === name && (code === null || code === codeOf(payload))) receive(payload as never);
  }

  private forward(event: EventName): void {
    // A newer node may want an event that does not exist here.
    if (this.isStopped || this.forwarded.has(event) || !EVENT_TRAITS[event]?.travels) return;
    const stop = this.engine.events.on(event, (payload) => {
      if (this.isWanted(event, payload)) this.topic.send([event, payload]);
    });
    this.forwarded.set(event, stop);
  }

  private isWanted(event: EventName, payload: Payload): boolean {
    const { topic } = this;
    if (topic.isWanted(keyOf(event, null))) return true;
    const code = codeOf(payload);
    if (code !== undefined && topic.isWanted(keyOf(event, code))) return true;
    if (!topic.hasInterest) {
      this.forwarded.get(event)?.();
      this.forwarded.delete(event);
    }
    return false;
  }
}

const keyOf = (event: EventName, code: string | null) => `${event} ${code ?? ''}`;
const eventOf = (key: string) => key.split(' ', 1)[0] as EventName;
const codeOf = (payload: Payload) => (payload as { templateCode?: string }).templateCode;
