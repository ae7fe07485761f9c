import type { Store } from '../life/store.js';
import type { JobEvents } from '../model/events.js';
import type { NodeState } from '../model/node.js';
import { notifyEnds } from '../store/end-notices.store.js';

/** Who watches elsewhere says so again three times as often. */
const WATCHED_MS = 15_000;
const MOST_WATCHED = 10_000;

/**
 * The jobs that somebody watches, here or on another node. Who watches is told when there is something new to be looked
 * at; where nobody does, nobody listens to this node's runs.
 */
export class Watched {
  private readonly here = new Map<string, number>();
  /** Until when, the oldest first. */
  private readonly elsewhere = new Map<string, number>();
  private readonly begun: ((identifier: string) => void)[] = [];
  private stopListening: (() => void) | undefined;
  private news = new Set<string>();
  private telling: Promise<void> | undefined;

  /** @param wake who watches here */
  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly node: NodeState,
    private readonly wake: (identifier: string) => void,
  ) {}

  /** Is called for each job that somebody begins to watch, or goes on to. */
  onBegun(listener: (identifier: string) => void): void {
    this.begun.push(listener);
  }

  has(identifier: string): boolean {
    return this.here.has(identifier) || this.isElsewhere(identifier);
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
    const now = performance.now();
    for (const identifier of identifiers) {
      this.elsewhere.delete(identifier);
      this.elsewhere.set(identifier, now + WATCHED_MS);
      this.begin(identifier);
    }
    for (const [identifier, until] of this.elsewhere) {
      if (until > now && this.elsewhere.size <= MOST_WATCHED) break;
      this.elsewhere.delete(identifier);
    }
  }

  /** There is something new to be seen of a job. */
  changed(identifier: string): void {
    if (this.here.has(identifier)) this.wake(identifier);
    if (!this.isElsewhere(identifier)) return;
    this.news.add(identifier);
    this.telling ??= this.tell().finally(() => {
      this.telling = undefined;
    });
  }

  /** Resolves when nothing is being told any more. */
  async stop(): Promise<void> {
    this.elsewhere.clear();
    this.listenNoMore();
    await this.telling;
  }

  private isElsewhere(identifier: string): boolean {
    const until = this.elsewhere.get(identifier);
    return until !== undefined && until > performance.now();
  }

  private begin(identifier: string): void {
    if (!this.stopListening) {
      const tell = ({ jobRunIdentifier }: { jobRunIdentifier: string }) => {
        if (this.has(jobRunIdentifier)) this.changed(jobRunIdentifier);
        else this.listenNoMore();
      };
      const stops = [
        this.events.on('run.started', tell),
        this.events.on('run.finished', tell),
      ];
      this.stopListening = () => stops.forEach((stop) => stop());
    }
    for (const listener of this.begun) listener(identifier);
  }

  private listenNoMore(): void {
    const now = performance.now();
    for (const [identifier, until] of this.elsewhere) {
      if (until > now) break;
      this.elsewhere.delete(identifier);
    }
    if (this.here.size > 0 || this.elsewhere.size > 0) return;
    this.stopListening?.();
    this.stopListening = undefined;
  }

  /** Never rejects: who watches looks for himself as well. */
  private async tell(): Promise<void> {
    const { db, tables } = this.store;
    await Promise.resolve();
    while (this.news.size > 0) {
      const identifiers = [...this.news];
      this.news.clear();
      const from = this.node.id;
      const notice = { kind: 'changed', from, identifiers } as const;
      await notifyEnds(db, tables, notice).catch((error: unknown) =>
        this.events.emit('engine.error', {
          doing: 'telling who watches jobs',
          error,
        }),
      );
    }
  }
}
