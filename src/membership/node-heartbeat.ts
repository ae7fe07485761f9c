import { CoalescedTask } from '../concurrency/coalesced-task.js';
import { endNode, heartbeatNode, registerNode, type NodeIdentity } from './node.sql.js';
import type { DedicatedConnection } from '../database/connection/dedicated-connection.js';
import type { Tables } from '../database/tables.js';
import {
  HEARTBEATS_PER_LEASE,
  monotonicMs,
  trustedUntil,
  type HeartbeatMemory,
} from './heartbeat-memory.js';

/** Reports of the heartbeat to its node. `id` is the incarnation. */
export type HeartbeatReport =
  | { kind: 'joined' | 'renewed'; id: string; hasSuspects: boolean }
  /** The incarnation has ended in the database: declared `lost` by another node, or `fenced` by this one. */
  | { kind: 'ended'; id: string; reason: 'lost' | 'fenced' }
  | { kind: 'failed'; error: unknown }
  | { kind: 'left' };

/** A failed heartbeat is retried after this fraction of the time between heartbeats. */
const RETRIES_PER_HEARTBEAT = 4;
const MAX_CONNECT_MS = 5_000;
const MIN_CONNECT_MS = 250;

/**
 * The node heartbeat: it renews the lease of the node itself, on its own connection, which is reopened after any
 * failure. (The leases of the node's runs are renewed on the main thread: `run-leases.ts`.)
 *
 * Each answered heartbeat lets the node be trusted for a lease from the moment it was sent, less a margin of one heartbeat.
 * After that no heartbeat revives the incarnation: the heartbeat ends it, and the node joins as a new one.
 */
export class NodeHeartbeat {
  private connection: DedicatedConnection | undefined;
  private node: NodeIdentity | undefined;
  private joined = false;
  /** The incarnation is to be ended in the database. */
  private ending = false;
  /** A request for a heartbeat while one is in flight is never lost. */
  private readonly sends = new CoalescedTask(
    () => this.renew(),
    (error) => this.report({ kind: 'failed', error }),
  );

  constructor(
    private readonly tables: Tables,
    private readonly memory: HeartbeatMemory,
    private readonly connect: (timeoutMs: number) => Promise<DedicatedConnection>,
    private readonly report: (report: HeartbeatReport) => void,
    /** For how long the main thread's event loop has been blocked; null when it is not. */
    private readonly blockedMs: () => number | null,
  ) {}

  join(node: NodeIdentity): void {
    this.node = node;
    this.joined = false;
    this.sends.request();
  }

  /** The node has stopped its work: ends this incarnation as soon as the database answers. */
  fence(id: string): void {
    if (this.node?.id !== id) return;
    this.ending = true;
    this.sends.request();
  }

  /** Ends the incarnation as shut down, if the database answers. Never rejects. */
  async leave(): Promise<void> {
    const node = this.node;
    const reason = this.ending ? 'fenced' : 'shutdown';
    await this.sends.stop();
    this.node = undefined;
    try {
      if (node) await endNode(await this.open(), this.tables, node.id, reason);
      await this.connection?.end();
    } catch {
      this.connection?.destroy();
    }
    this.report({ kind: 'left' });
  }

  /** Never rejects. */
  private async renew(): Promise<void> {
    const { node } = this;
    if (!node) return;
    let pauseMs = this.memory.leaseMs / HEARTBEATS_PER_LEASE;
    try {
      await this.send(await this.open(), node);
    } catch (error) {
      this.connection?.destroy();
      this.connection = undefined;
      this.report({ kind: 'failed', error });
      pauseMs /= RETRIES_PER_HEARTBEAT;
    }
    if (this.node) this.sends.request(pauseMs);
  }

  private async send(db: DedicatedConnection, node: NodeIdentity): Promise<void> {
    const { memory, tables } = this;
    const { leaseMs } = memory;
    const sentAt = monotonicMs();
    if (this.joined && sentAt >= memory.trustedUntil) this.ending = true;
    if (this.ending) {
      const reason = await endNode(db, tables, node.id, 'fenced');
      if (this.node !== node) return;
      return this.reportEnd(node, reason === 'lost' ? 'lost' : 'fenced');
    }
    const answer = this.joined
      ? await heartbeatNode(db, tables, node.id, {
          leaseMs,
          running: memory.running,
          eventLoopLagMs: Math.max(memory.takeLag(), this.blockedMs() ?? 0),
          blockedMs: this.blockedMs(),
          rssBytes: process.memoryUsage.rss(),
        })
      : await registerNode(db, tables, node, leaseMs);
    // A new incarnation has joined meanwhile: this answer is about the former one.
    if (this.node !== node) return;
    if (!answer) return this.reportEnd(node, 'lost');
    memory.trustUntil(trustedUntil(sentAt, leaseMs));
    const kind = this.joined ? 'renewed' : 'joined';
    this.joined = true;
    this.report({ kind, id: node.id, hasSuspects: answer.hasSuspects });
  }

  private reportEnd({ id }: NodeIdentity, reason: 'lost' | 'fenced'): void {
    this.node = undefined;
    this.joined = false;
    this.ending = false;
    this.report({ kind: 'ended', id, reason });
  }

  private async open(): Promise<DedicatedConnection> {
    const timeout = Math.min(Math.max(this.memory.leaseMs / 4, MIN_CONNECT_MS), MAX_CONNECT_MS);
    this.connection ??= await this.connect(timeout);
    return this.connection;
  }
}
