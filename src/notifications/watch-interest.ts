import type { Store } from '../database/store.js';
import type { JobEvents } from '../job/events.js';
import type { NodeState } from '../job/node-state.js';
import { AskedFor } from './interest-registry.js';
import { Telling } from './notification-sender.js';

const MOST_WATCHED = 10_000;

/**
 * The jobs that somebody watches, here or on another node. Who watches is told when there is something new to be looked
 * at; where nobody does, nobody listens to this node's runs.
 */
export class Watched {
  private readonly here = new Map<string, number>();
  private readonly elsewhere = new AskedFor(MOST_WATCHED);
  private readonly telling: Telling;
  private readonly begun: ((identifier: string) => void)[] = [];
  private stopListening: (() => void) | undefined;

  /** @param wake who watches here */
  constructor(
    store: Store,
    private readonly events: JobEvents,
    node: NodeState,
    private readonly wake: (identifier: string) => void,
  ) {
    const doing = 'telling who watches jobs';
    this.telling = new Telling(store, events, node, 'changed', doing);
  }

  /** Is called for each job that somebody begins to watch, or goes on to. */
  onBegun(listener: (identifier: string) => void): void {
    this.begun.push(listener);
  }

  has(identifier: string): boolean {
    return this.here.has(identifier) || this.elsewhere.has(identifier);
  }

  /** Somebody here watches. @returns how to end that */
  add(identifier: string): () => void {
    this.here.set(identifier, (this.here.get(identifier) ?? 0) + 1);
    this.begin(identifier);
    return () => {
      const left = this.here.get(identifier)! - 1;
      if (left > 0) this.here.set(identifier, left);
      else this.here.delete(identifier);
      this.listenNoMore();
    };
  }

  /** Somebody elsewhere watches these. */
  expect(identifiers: string[]): void {
    this.elsewhere.add(identifiers);
    for (const identifier of identifiers) this.begin(identifier);
  }

  /** There is something new to be seen of a job. */
  changed(identifier: string): void {
    if (this.here.has(identifier)) this.wake(identifier);
    if (this.elsewhere.has(identifier)) this.telling.tell(identifier);
  }

  /** Resolves when nothing is being told any more. */
  async stop(): Promise<void> {
    this.elsewhere.clear();
    this.listenNoMore();
    await this.telling.idle();
  }

  private begin(identifier: string): void {
    if (!this.stopListening) {
      const tell = ({ jobRunIdentifier }: { jobRunIdentifier: string }) => {
        if (this.has(jobRunIdentifier)) this.changed(jobRunIdentifier);
        else this.listenNoMore();
      };
      const stops = [this.events.on('run.started', tell), this.events.on('run.finished', tell)];
      this.stopListening = () => stops.forEach((stop) => stop());
    }
    for (const listener of this.begun) listener(identifier);
  }

  private listenNoMore(): void {
    if (this.here.size > 0 || !this.elsewhere.isEmpty) return;
    this.stopListening?.();
    this.stopListening = undefined;
  }
}
