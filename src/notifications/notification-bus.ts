import { randomUUID } from 'node:crypto';
import { runEvery } from '../concurrency/timers.js';
import type { PiggybackStatement } from '../database/connection/engine-pool.js';
import type { EngineContext } from '../database/engine-context.js';
import { runOutsideTransaction } from '../database/transactions/current-transaction.js';
import { ListeningConnection } from './listening-connection.js';
import { NotificationSender, type SendingOptions } from './notification-sender.js';

/** Interest is renewed this often, for nodes that joined since or missed a message. */
const RENEW_MS = 5_000;
/** Interest that was not renewed for this long is dropped. */
const INTEREST_TTL_MS = 3 * RENEW_MS;

/** A request to all nodes to renew their interest. */
const RENEW = 'renew';

/** `items` are what a topic sends; `interest` are keys that the sender wants to receive items of. */
interface Message {
  topic: string;
  /** The bus that sent it. */
  from: string;
  items?: unknown;
  interest?: unknown;
}

export interface TopicOptions extends SendingOptions {
  name: string;
  /** Called with each item of another node. */
  receive: (item: unknown) => void;
  /** Called when other nodes register or renew interest in these keys. */
  onWanted?: (keys: string[]) => void;
  /** Keys of interest of other nodes; beyond that the oldest are dropped. Default 1,000. */
  maxInterest?: number;
}

/**
 * Messages from node to node on NOTIFY: at most once, in no defined order, and none to the sender itself. Callers must
 * not depend on them: a caller that waits for a message polls as well. A topic groups messages of one kind.
 */
export class NotificationBus {
  private readonly id = randomUUID();
  private readonly topics = new Map<string, Topic>();
  private readonly connectedListeners: (() => void)[] = [];
  private readonly stopListeners: (() => Promise<void> | void)[] = [];
  private readonly connection: ListeningConnection;
  private readonly renewals: NotificationSender;
  private stopRenewing: (() => void) | undefined;
  private isStopped = false;
  readonly isEnabled: boolean;
  /** Hosts of isolated jobs have few connections, and do not listen. */
  readonly canListen: boolean;

  constructor(private readonly engine: EngineContext) {
    const { notify, connections } = engine.settings;
    this.isEnabled = notify;
    this.canListen = notify && connections === undefined;
    this.renewals = this.createSender(RENEW, 'items');
    this.connection = new ListeningConnection(engine, {
      connected: () => this.connected(),
      receive: (payload) => this.receive(payload),
    });
  }

  createTopic(options: TopicOptions): Topic {
    const { name } = options;
    const topic = new Topic(
      this,
      this.createSender(name, 'items', options),
      this.createSender(name, 'interest'),
      options,
    );
    this.topics.set(name, topic);
    return topic;
  }

  /** @param listener called whenever the bus starts to listen; earlier messages were not received */
  onConnected(listener: () => void): void {
    this.connectedListeners.push(listener);
  }

  onStop(listener: () => Promise<void> | void): void {
    this.stopListeners.push(listener);
  }

  /** Starts to listen, which takes a connection. Idempotent. */
  listen(): void {
    if (!this.canListen || this.stopRenewing || this.isStopped) return;
    runOutsideTransaction(() => {
      this.stopRenewing = runEvery(RENEW_MS, () => this.renewInterest());
      this.connection.start();
    });
  }

  /** Stops listening. Idempotent; safe if it never listened. */
  async stop(): Promise<void> {
    this.isStopped = true;
    this.stopRenewing?.();
    await Promise.all([
      this.connection.stop(),
      this.renewals.idle(),
      ...this.stopListeners.map((listener) => listener()),
    ]);
  }

  private createSender(topic: string, list: 'items' | 'interest', options: SendingOptions = {}) {
    return new NotificationSender(this.engine, { topic, from: this.id }, list, options);
  }

  private connected(): void {
    for (const listener of this.connectedListeners) listener();
    this.renewals.send(null);
    this.renewInterest();
  }

  private renewInterest(): void {
    for (const topic of this.topics.values()) topic.renewInterest();
  }

  private receive(payload: string): void {
    const message = parse(payload);
    if (!message || message.from === this.id) return;
    if (message.topic === RENEW) return this.renewInterest();
    this.topics.get(message.topic)?.receive(message.items, message.interest);
  }
}

/** @returns null if it is not a message of a bus: any session can send on the channel */
function parse(payload: string): Message | null {
  try {
    const message = JSON.parse(payload) as Message | null;
    return typeof message?.topic === 'string' && typeof message.from === 'string' ? message : null;
  } catch {
    return null;
  }
}

/** One kind of message, with the interest that other nodes and this one have in it. */
export class Topic {
  private readonly remote: InterestRegistry;
  /** Keys that this node wants, with how many callers do. */
  private readonly local = new Map<string, number>();

  constructor(
    private readonly bus: NotificationBus,
    private readonly items: NotificationSender,
    private readonly interest: NotificationSender,
    private readonly options: TopicOptions,
  ) {
    this.remote = new InterestRegistry(options.maxInterest ?? 1_000);
  }

  /** Sends an item to all nodes that listen. */
  send(item: unknown): void {
    if (this.bus.isEnabled) this.items.send(item);
  }

  /** See `NotificationSender.piggyback`. */
  piggyback(item: unknown, quietMs: number): PiggybackStatement | null {
    return this.bus.isEnabled ? this.items.piggyback(item, quietMs) : null;
  }

  /** Requests items of this key from other nodes until the returned function is called. */
  addInterest(key: string): () => void {
    if (!this.bus.canListen) return () => undefined;
    this.local.set(key, (this.local.get(key) ?? 0) + 1);
    this.bus.listen();
    this.interest.send(key);
    return () => {
      const left = this.local.get(key)! - 1;
      if (left > 0) this.local.set(key, left);
      else this.local.delete(key);
    };
  }

  renewInterest(): void {
    for (const key of this.local.keys()) this.interest.send(key);
  }

  /** Whether another node wants items of this key. */
  isWanted(key: string): boolean {
    return this.remote.has(key);
  }

  /** Whether another node wants items of any key. */
  get hasInterest(): boolean {
    return !this.remote.isEmpty;
  }

  /** Drops the interest of other nodes in this key after its last item. */
  forgetInterest(key: string): void {
    this.remote.delete(key);
  }

  receive(items: unknown, interest: unknown): void {
    if (Array.isArray(items)) for (const item of items) this.options.receive(item);
    if (!Array.isArray(interest) || !this.options.onWanted) return;
    const keys = interest.filter((key) => typeof key === 'string');
    this.remote.add(keys);
    this.options.onWanted(keys);
  }

  /** Resolves when no NOTIFY is in flight. */
  async idle(): Promise<void> {
    await Promise.all([this.items.idle(), this.interest.idle()]);
  }

  /** Sends the pending items, and none after that. */
  async close(): Promise<void> {
    this.local.clear();
    this.remote.clear();
    await Promise.all([this.items.close(), this.interest.close()]);
  }
}

/** Keys that other nodes want, as long as they renew their interest. */
export class InterestRegistry {
  /** Expiry times by key, the oldest first. */
  private readonly until = new Map<string, number>();

  /** @param max beyond it the oldest keys are dropped */
  constructor(
    private readonly max: number,
    private readonly ttlMs = INTEREST_TTL_MS,
  ) {}

  add(keys: string[]): void {
    const until = performance.now() + this.ttlMs;
    for (const key of keys) {
      this.until.delete(key);
      this.until.set(key, until);
    }
    this.removeExpired();
  }

  has(key: string): boolean {
    const until = this.until.get(key);
    return until !== undefined && until > performance.now();
  }

  delete(key: string): void {
    this.until.delete(key);
  }

  get isEmpty(): boolean {
    this.removeExpired();
    return this.until.size === 0;
  }

  clear(): void {
    this.until.clear();
  }

  private removeExpired(): void {
    const now = performance.now();
    for (const [key, until] of this.until) {
      if (until > now && this.until.size <= this.max) return;
      this.until.delete(key);
    }
  }
}
