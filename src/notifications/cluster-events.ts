import { randomUUID } from 'node:crypto';
import type { Store } from '../database/store.js';
import { EVENT_TRAITS } from '../job/event-delivery.js';
import type { JobEventMap, JobEvents } from '../job/events.js';
import { channelsOf, notifyAll } from './notify.sql.js';
import { packed } from './payloads.js';
import { NewsSender } from './cluster-event-sender.js';
import { runEvery } from '../concurrency/timers.js';

/** Who listens says so as often; who tells believes it three times as long. */
const SAY_EVERY_MS = 5_000;
const WANTED_MS = 15_000;
/** What nodes may ask for, all together: there are as many as there are listeners. */
const MOST_WANTS = 1_000;

type EventName = keyof JobEventMap;
type Payload = JobEventMap[EventName][0];

/** By event: the template's code, or null for all. */
type Want = [event: EventName, code: string | null];
type Message = { from: string; engine: string } & (
  | { kind: 'who' }
  | { kind: 'want'; wants: Want[] }
  | { kind: 'events'; events: [EventName, Payload][] }
);

/**
 * Events from node to node, of one engine: at most once, and none where nobody has asked for it. Who listens says what
 * for, again and again; who hears that tells what fits, some times a second, as much as there is room for.
 */
export class News {
  private readonly id = randomUUID();
  private listen: () => void = () => undefined;
  private over = false;
  private readonly listeners: { want: Want; hear: (payload: never) => void }[] = [];
  private stopSaying: (() => void) | undefined;
  /** Until when, by want. */
  private readonly wanted = new Map<string, number>();
  /** The events that somebody wants, and until when. */
  private readonly heardOf = new Map<EventName, { off: () => void; until: number }>();
  private readonly sender: NewsSender;

  /** @param notifies whether nodes hear one another at all */
  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly engine: string,
    private readonly notifies: boolean,
  ) {
    const head = { from: this.id, engine, kind: 'events' };
    this.sender = new NewsSender(store, events, head);
  }

  /** @param listen has what other nodes tell be heard; idempotent */
  hearBy(listen: () => void): void {
    this.listen = listen;
  }

  /** Has a listener hear what other nodes tell, not this one, from `start` on. */
  want<E extends EventName>(
    event: E,
    code: string | null,
    hear: (payload: JobEventMap[E][0]) => void,
  ): void {
    this.listeners.push({ want: [event, code], hear });
  }

  /** Listens, where somebody wants it. */
  start(): void {
    if (!this.notifies || this.listeners.length === 0) return;
    this.stopSaying = runEvery(SAY_EVERY_MS, () => this.sayWants());
    this.listen();
  }

  /** It is listened from now on. */
  opened(): void {
    const { id: from, engine } = this;
    this.say([JSON.stringify({ from, engine, kind: 'who' })]);
    this.sayWants();
  }

  /** What somebody said, this node as well. */
  heard(payload: string | undefined): void {
    const message = this.read(payload);
    if (!message) return;
    if (message.kind === 'who') this.sayWants();
    else if (message.kind === 'want')
      for (const [event, code] of pairs(message.wants)) this.expect(event as EventName, code);
    else if (message.kind === 'events')
      for (const [event, told] of pairs(message.events))
        if (typeof told === 'object' && told !== null)
          this.hear(event as EventName, told as Payload);
  }

  /** Tells what is left, once; then nothing any more. */
  async stop(): Promise<void> {
    this.stopSaying?.();
    for (const { off } of this.heardOf.values()) off();
    this.heardOf.clear();
    this.over = true;
    await this.sender.stop();
  }

  private read(payload: string | undefined): Message | undefined {
    try {
      const message = JSON.parse(payload ?? '') as Message | null;
      const isOurs = message?.engine === this.engine && message.from !== this.id;
      return isOurs ? message : undefined;
    } catch {
      return undefined;
    }
  }

  private hear(event: EventName, payload: Payload): void {
    for (const { want, hear } of this.listeners)
      if (want[0] === event && fits(want[1], payload)) hear(payload as never);
  }

  private expect(event: EventName, code: unknown): void {
    // A newer node may ask for what is not known here.
    if (this.over || !EVENT_TRAITS[event]?.travels) return;
    if (code !== null && typeof code !== 'string') return;
    if (this.wanted.size >= MOST_WANTS) this.forgetOld();
    if (this.wanted.size >= MOST_WANTS) return;
    const until = performance.now() + WANTED_MS;
    this.wanted.set(keyOf(event, code), until);
    const heard = this.heardOf.get(event);
    if (heard) heard.until = until;
    else this.heardOf.set(event, { off: this.listenTo(event), until });
  }

  private listenTo(event: EventName): () => void {
    return this.events.on(event, (payload) => {
      if (this.isWanted(event, payload)) this.sender.add(JSON.stringify([event, payload]));
    });
  }

  private isWanted(event: EventName, payload: Payload): boolean {
    const now = performance.now();
    const byAll = this.wanted.get(keyOf(event, null));
    if (byAll !== undefined && byAll > now) return true;
    const { templateCode } = payload as { templateCode?: string };
    const byCode = this.wanted.get(keyOf(event, templateCode ?? null));
    if (byCode !== undefined && byCode > now) return true;
    const heard = this.heardOf.get(event);
    if (!heard || heard.until > now) return false;
    // Nobody listens to it any more: neither does this.
    heard.off();
    this.heardOf.delete(event);
    return false;
  }

  private forgetOld(): void {
    const now = performance.now();
    for (const [key, until] of this.wanted) if (until <= now) this.wanted.delete(key);
  }

  private sayWants(): void {
    if (this.listeners.length === 0 || this.over) return;
    const { id: from, engine } = this;
    const wants = this.listeners.map(({ want }) => JSON.stringify(want));
    const head = { from, engine, kind: 'want' } as const;
    this.say(packed(head, 'wants', [...new Set(wants)]).payloads);
  }

  /** It is said again in any case. */
  private say(payloads: string[]): void {
    const { db, tables } = this.store;
    notifyAll(db, channelsOf(tables).events, payloads).catch(() => undefined);
  }
}

const keyOf = (event: EventName, code: string | null) => `${event} ${code ?? ''}`;

const fits = (code: string | null, payload: Payload) =>
  code === null || (payload as { templateCode?: string }).templateCode === code;

/** Of what came from outside: a list of pairs that begin with a name. */
export const pairs = (given: unknown): [string, unknown][] =>
  Array.isArray(given)
    ? given.filter(
        (one): one is [string, unknown] => Array.isArray(one) && typeof one[0] === 'string',
      )
    : [];
