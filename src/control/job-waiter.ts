import { setTimeout as pause } from 'node:timers/promises';
import { WriteBatcher } from '../concurrency/write-batcher.js';
import type { Store } from '../database/store.js';
import { JobNotFoundError, WaitTimeoutError } from '../job/errors.js';
import type { JobEvents } from '../job/events.js';
import type { NodeState } from '../job/node-state.js';
import type { Settings } from '../options/settings.js';
import type { JobRun } from '../database/entities/index.js';
import { outside } from '../database/transactions/current-transaction.js';
import { ConnectionLostError } from '../database/connection/connection-errors.js';
import {
  jobStates,
  notifyEnds,
  type EndNotice,
  type JobState,
} from '../notifications/completion-notice.sql.js';
import { ToldEnds } from '../notifications/completion-notifier.js';
import { Watched } from '../notifications/watch-interest.js';
import { Watches } from './job-watcher.js';

/** A job of milliseconds may be over before its node has heard that somebody waits. */
const FIRST_POLL_MS = 10;
const LONGEST_POLL_MS = 1_000;
/** Nodes that came meanwhile, or could not hear, are told again. */
const SAY_EVERY_MS = 5_000;
const TOGETHER = 500;
const LEFT = 'it was cancelled, or removed from the queue, while it was waited for';

/**
 * Waiting for jobs to be over, whatever node runs them: told by an event where they run here, by a notification where
 * not, and looked at by polling in any case. However many wait, a process looks with one statement at a time.
 */
export class Waits {
  private readonly waiting = new Map<string, Set<() => void>>();
  private stopListening: (() => void) | undefined;
  private readonly told: ToldEnds;
  readonly watched: Watched;
  readonly watches: Watches;
  private readonly listens: boolean;
  private listen: () => void = () => undefined;

  private readonly looks = new WriteBatcher<string, JobState>({
    maxItems: TOGETHER,
    bytesOf: ({ length }) => length,
    write: (identifiers) => jobStates(this.store.db, this.store.tables, identifiers),
  });
  private readonly notices = this.noticesOf('awaited');
  private readonly watchNotices = this.noticesOf('watched');

  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly node: NodeState,
    { notify, connections }: Pick<Settings, 'notify' | 'connections'>,
  ) {
    // A host of isolated jobs has few connections, and looks by itself.
    this.listens = notify && connections === undefined;
    this.told = new ToldEnds(store, events, node);
    this.watched = new Watched(store, events, node, (one) => this.wake(one));
    this.watches = new Watches(store, this);
  }

  /** @param listen has what other nodes tell be heard; idempotent */
  hearBy(listen: () => void): void {
    this.listen = listen;
  }

  /** What another node has said, or this one. */
  heard({ kind, from, identifiers }: EndNotice): void {
    if (kind === 'over' || kind === 'changed') for (const one of identifiers) this.wake(one);
    else if (from === this.node.id) return;
    else if (kind === 'awaited') this.told.expect(identifiers);
    else this.watched.expect(identifiers);
  }

  /** For a connection that was made anew: what was told meanwhile was told to nobody. */
  lookAgain(): void {
    for (const identifier of this.waiting.keys()) this.wake(identifier);
  }

  async stop(): Promise<void> {
    this.watches.stop();
    await Promise.all([this.told.stop(), this.watched.stop()]);
  }

  /** @param wake is called when there is something new of the job. @returns how to end that */
  watch(identifier: string, wake: () => void): () => void {
    const remove = this.add(identifier, wake);
    const leave = this.watched.add(identifier);
    return () => {
      leave();
      remove();
    };
  }

  /** Tells other nodes that somebody here watches the job. Nothing depends on it. */
  sayWatched(identifier: string): void {
    this.sayBy(this.watchNotices, identifier);
  }

  /** @throws JobNotFoundError, WaitTimeoutError */
  async forRun(identifier: string, timeoutMs: number): Promise<JobRun> {
    const giveUpAt = performance.now() + timeoutMs;
    let sayAt = 0;
    let poll = FIRST_POLL_MS;
    let seen = false;
    let wake = new AbortController();
    const remove = this.add(identifier, () => wake.abort());
    try {
      for (;;) {
        wake = new AbortController();
        const state = await this.look(identifier);
        if (state === null) throw new JobNotFoundError(identifier, seen ? LEFT : undefined);
        seen = true;
        if (typeof state === 'object' && state.status === 'DONE') return state;
        const now = performance.now();
        if (now >= giveUpAt) throw new WaitTimeoutError(identifier, timeoutMs);
        if (now >= sayAt) {
          sayAt = now + SAY_EVERY_MS;
          this.say(identifier);
        }
        await pause(Math.min(poll, giveUpAt - now), undefined, {
          signal: wake.signal,
        }).catch(() => undefined);
        poll = Math.min(poll * 1.5, LONGEST_POLL_MS);
      }
    } finally {
      remove();
    }
  }

  private async look(identifier: string): Promise<JobState | 'away'> {
    try {
      return await this.looks.add(identifier);
    } catch (error) {
      // It may be back in time.
      if (error instanceof ConnectionLostError && !this.store.db.isClosed) return 'away';
      throw error;
    }
  }

  /** Nothing depends on it. */
  private say(identifier: string): void {
    this.sayBy(this.notices, identifier);
  }

  private sayBy(notices: WriteBatcher<string, void>, identifier: string): void {
    if (!this.listens) return;
    outside(this.listen);
    notices.add(identifier).catch(() => undefined);
  }

  private noticesOf(kind: EndNotice['kind']): WriteBatcher<string, void> {
    return new WriteBatcher<string, void>({
      maxItems: TOGETHER,
      bytesOf: ({ length }) => length,
      write: async (identifiers) => {
        const { db, tables } = this.store;
        const from = this.node.id;
        await notifyEnds(db, tables, { kind, from, identifiers });
        return identifiers.map(() => undefined);
      },
    });
  }

  private add(identifier: string, wake: () => void): () => void {
    const others = this.waiting.get(identifier);
    if (others) others.add(wake);
    else this.waiting.set(identifier, new Set([wake]));
    this.stopListening ??= this.events.on('run.finished', ({ jobRunIdentifier }) =>
      this.wake(jobRunIdentifier),
    );
    return () => {
      const all = this.waiting.get(identifier);
      all?.delete(wake);
      if (all?.size === 0) this.waiting.delete(identifier);
      if (this.waiting.size > 0) return;
      this.stopListening?.();
      this.stopListening = undefined;
    };
  }

  private wake(identifier: string): void {
    for (const wake of this.waiting.get(identifier) ?? []) wake();
  }
}
