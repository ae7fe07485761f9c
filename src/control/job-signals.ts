import type { NotificationBus, Topic, TopicOptions } from '../notifications/notification-bus.js';

interface SignalOptions extends Pick<TopicOptions, 'doing' | 'maxInterest'> {
  topic: string;
  /** Listens to the events of this node that signal. Called while a signal is wanted. @returns unsubscribes */
  subscribe: () => () => void;
  /** Called for each job whose signals are wanted, on this node or another, and repeatedly while they are. */
  onWanted?: (identifier: string) => void;
}

/** Wakes callers on this node and on others when a job changes. */
export class JobSignals {
  private readonly callers = new Map<string, Set<() => void>>();
  private readonly topic: Topic;
  private unsubscribe: (() => void) | undefined;

  constructor(
    bus: NotificationBus,
    private readonly options: SignalOptions,
  ) {
    this.topic = bus.createTopic({
      ...options,
      name: options.topic,
      receive: (identifier) => this.wake(identifier as string),
      onWanted: (identifiers) => {
        this.updateSubscription();
        for (const identifier of identifiers) options.onWanted?.(identifier);
      },
    });
    bus.onConnected(() => {
      for (const identifier of this.callers.keys()) this.wake(identifier);
    });
    bus.onStop(() => this.stop());
  }

  /** Calls `wake` when the job changes. @returns a function that ends this */
  add(identifier: string, wake: () => void): () => void {
    const callers = this.callers.get(identifier);
    if (callers) callers.add(wake);
    else this.callers.set(identifier, new Set([wake]));
    this.updateSubscription();
    this.options.onWanted?.(identifier);
    return () => {
      const left = this.callers.get(identifier);
      left?.delete(wake);
      if (left?.size === 0) this.callers.delete(identifier);
      this.updateSubscription();
    };
  }

  /** Subscribes to signals of other nodes. @returns a function that ends this */
  subscribeToOthers(identifier: string): () => void {
    return this.topic.addInterest(identifier);
  }

  isWanted(identifier: string): boolean {
    return this.callers.has(identifier) || this.topic.isWanted(identifier);
  }

  /** Signals a change of the job. @param isLast other nodes need no later signal */
  signal(identifier: string, { isLast = false } = {}): void {
    this.wake(identifier);
    if (this.topic.isWanted(identifier)) this.topic.send(identifier);
    if (isLast) this.topic.forgetInterest(identifier);
    this.updateSubscription();
  }

  private async stop(): Promise<void> {
    await this.topic.close();
    this.updateSubscription();
  }

  private wake(identifier: string): void {
    for (const wake of this.callers.get(identifier) ?? []) wake();
  }

  private updateSubscription(): void {
    if (this.callers.size > 0 || this.topic.hasInterest) {
      this.unsubscribe ??= this.options.subscribe();
      return;
    }
    this.unsubscribe?.();
    this.unsubscribe = undefined;
  }
}
