import { beatNode, endNode, registerNode, type NodeFacts } from './node.sql.js';
import type { DedicatedConnection } from '../database/connection/dedicated-connection.js';
import type { Tables } from '../database/tables.js';
import { BEATS_PER_LEASE } from './heartbeats-per-lease.js';
import { monotonicMs, trustedUntil, type PulseMemory } from './memory-sample.js';

/** What a pulse tells the node it beats for. `id` is the incarnation it speaks of. */
export type PulseNews =
  | { kind: 'joined' | 'beat'; id: string; suspects: boolean }
  /** The incarnation has ended in the database: `lost` by somebody else's word, or `fenced`. */
  | { kind: 'over'; id: string; reason: 'lost' | 'fenced' }
  | { kind: 'failed'; error: unknown }
  | { kind: 'left' };

/** After a beat that failed, sooner than the next one would be. */
const RETRIES_PER_BEAT = 4;
const LONGEST_TIMEOUT_MS = 5_000;
const SHORTEST_TIMEOUT_MS = 250;

/**
 * Beats for one incarnation of a node after another, on a connection of its own that is made again whenever
 * anything fails. Each good beat lets the node be trusted for a lease from the moment it was sent, less a margin of
 * one beat. Once that time is over no beat revives the incarnation: it is ended instead, and a new one may join.
 */
export class Pulse {
  private connection: DedicatedConnection | undefined;
  private facts: NodeFacts | undefined;
  private joined = false;
  private over = false;
  private timer: NodeJS.Timeout | undefined;
  private beating: Promise<void> | undefined;

  constructor(
    private readonly tables: Tables,
    private readonly memory: PulseMemory,
    private readonly connect: (timeoutMs: number) => Promise<DedicatedConnection>,
    private readonly tell: (news: PulseNews) => void,
    /** How long the main thread's event loop has not turned; null where it does. */
    private readonly blockedMs: () => number | null,
  ) {}

  join(facts: NodeFacts): void {
    this.facts = facts;
    this.joined = false;
    this.soon();
  }

  /** The node has stopped its work: this incarnation is to end as soon as the database can be told. */
  fence(id: string): void {
    if (this.facts?.id !== id) return;
    this.over = true;
    this.soon();
  }

  /** Ends the incarnation as shut down, if the database answers. Never rejects. */
  async leave(): Promise<void> {
    clearTimeout(this.timer);
    const facts = this.facts;
    const reason = this.over ? 'fenced' : 'shutdown';
    await this.beating;
    this.facts = undefined;
    clearTimeout(this.timer);
    try {
      if (facts) await endNode(await this.open(), this.tables, facts.id, reason);
      await this.connection?.end();
    } catch {
      this.connection?.destroy();
    }
    this.tell({ kind: 'left' });
  }

  private soon(): void {
    clearTimeout(this.timer);
    if (this.beating) return;
    this.beating = this.beat().finally(() => {
      this.beating = undefined;
    });
  }

  /** Never rejects. */
  private async beat(): Promise<void> {
    const facts = this.facts;
    if (!facts) return;
    const interval = this.memory.leaseMs / BEATS_PER_LEASE;
    let pause = interval;
    try {
      await this.send(await this.open(), facts);
      // Another incarnation has joined, or this one was told to end, meanwhile.
      if (this.facts !== facts || this.over) pause = 0;
    } catch (error) {
      this.connection?.destroy();
      this.connection = undefined;
      this.tell({ kind: 'failed', error });
      pause = interval / RETRIES_PER_BEAT;
    }
    if (!this.facts) return;
    this.timer = setTimeout(() => this.soon(), pause);
    this.timer.unref();
  }

  private async send(db: DedicatedConnection, facts: NodeFacts): Promise<void> {
    const { memory, tables } = this;
    const { leaseMs } = memory;
    const sentAt = monotonicMs();
    if (this.joined && sentAt >= memory.trustedUntil) this.over = true;
    if (this.over) {
      const reason = await endNode(db, tables, facts.id, 'fenced');
      return this.end(facts, reason === 'lost' ? 'lost' : 'fenced');
    }
    const answer = this.joined
      ? await beatNode(db, tables, facts.id, {
          leaseMs,
          running: memory.running,
          eventLoopLagMs: Math.max(memory.takeLag(), this.blockedMs() ?? 0),
          blockedMs: this.blockedMs(),
          rssBytes: process.memoryUsage.rss(),
        })
      : await registerNode(db, tables, facts, leaseMs);
    if (!answer) return this.end(facts, 'lost');
    memory.trustUntil(trustedUntil(sentAt, leaseMs));
    const kind = this.joined ? 'beat' : 'joined';
    this.joined = true;
    this.tell({ kind, id: facts.id, suspects: answer.suspects });
  }

  private end({ id }: NodeFacts, reason: 'lost' | 'fenced'): void {
    this.facts = undefined;
    this.joined = false;
    this.over = false;
    this.tell({ kind: 'over', id, reason });
  }

  private async open(): Promise<DedicatedConnection> {
    const timeout = Math.min(
      Math.max(this.memory.leaseMs / 4, SHORTEST_TIMEOUT_MS),
      LONGEST_TIMEOUT_MS,
    );
    this.connection ??= await this.connect(timeout);
    return this.connection;
  }
}
