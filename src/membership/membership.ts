import { hostname } from 'node:os';
import type { Background } from '../concurrency/background.js';
import { runAfter, waitAtMost } from '../concurrency/timers.js';
import type { EngineContext } from '../database/engine-context.js';
import { PACKAGE_VERSION } from '../job/package-version.js';
import type { ClaimJobs } from '../lifecycle/claim/claim.js';
import type { Prefetch } from '../lifecycle/claim/prefetch.js';
import type { Suspects } from '../lifecycle/claim/suspects.js';
import type { HandlerRegistry } from '../lifecycle/handler-registry.js';
import type { Killer } from '../lifecycle/run/killer.js';
import type { ProcessRegistry } from '../lifecycle/run/process-registry.js';
import { startHeartbeat, type HeartbeatHost } from './heartbeat-host.js';
import { HeartbeatMemory, monotonicMs, trustedUntil } from './heartbeat-memory.js';
import type { HeartbeatReport } from './node-heartbeat.js';
import { registerNode, type NodeIdentity } from './node.sql.js';
import type { RunLeases } from './run-leases.js';

const MAX_CHECK_IN_MS = 250;
const MIN_CHECK_IN_MS = 20;
/** The boot does not wait longer for the first registration. */
const JOIN_MS = 5_000;
/** A fenced node waits so long for the release of its prefetched claims before it joins again. */
const RELEASE_MS = 5_000;
const LEAVE_MS = 4_000;

/**
 * This node among the others. It joins under an id, and its heartbeat renews its lease. Before the lease can have run
 * out in the database, the node fences itself: it claims nothing and stops its runs. When the database answers again,
 * it joins as a new incarnation under another id.
 */
export class Membership implements Background {
  private readonly memory = new HeartbeatMemory();
  private heartbeat: HeartbeatHost | null = null;
  private heartbeatFails = false;
  private stopped = false;
  private cancelCheckIn: (() => void) | undefined;

  constructor(
    private readonly engine: EngineContext,
    private readonly claims: ClaimJobs,
    private readonly handlers: HandlerRegistry,
    private readonly processes: ProcessRegistry,
    private readonly prefetch: Prefetch,
    private readonly leases: RunLeases,
    private readonly killer: Killer,
    private readonly suspects: Suspects,
  ) {}

  /**
   * Must be called before the first claim, so that a job that kills the node at once is charged with the crash. If the
   * database does not answer now, the heartbeat retries, and the runs have their own leases meanwhile. Never rejects.
   */
  async join(): Promise<void> {
    const { node, store, settings } = this.engine;
    node.isTrusted = () => monotonicMs() < this.memory.trustedUntil;
    this.checkIn(monotonicMs());
    await waitAtMost(JOIN_MS, this.register());
    if (this.stopped) return;
    this.heartbeat = startHeartbeat({
      store,
      memory: this.memory,
      maxBlockMs: settings.maxEventLoopBlock,
      report: (report) => this.receive(report),
      onDegraded: (error) => this.reportError('running the heartbeat thread', error),
    });
    this.heartbeat?.join(this.identity());
  }

  /** On the main connections: the heartbeat thread takes a tenth of a second to start. */
  private async register(): Promise<void> {
    const { store, node } = this.engine;
    const { leaseMs } = node;
    const sentAt = monotonicMs();
    try {
      await registerNode(store.db, store.tables, this.identity(), leaseMs);
      this.memory.trustUntil(trustedUntil(sentAt, leaseMs));
    } catch (error) {
      this.reportError('registering the node', error);
    }
  }

  async stop(): Promise<void> {
    this.stopped = true;
    await this.heartbeat?.leave(LEAVE_MS);
    this.cancelCheckIn?.();
  }

  /** Proves that the event loop turns, and checks whether the node may still trust its lease. */
  private checkIn(due: number): void {
    const { memory } = this;
    const { node } = this.engine;
    const now = monotonicMs();
    memory.aliveAt = now;
    memory.recordLag(now - due);
    memory.leaseMs = node.leaseMs;
    memory.running = this.processes.size;
    memory.isDebugged = isDebugged();
    node.lagMs = Math.max(now - due, 0);
    if (!this.stopped && !node.isTrusted()) this.fence('silent');
    const pause = Math.max(Math.min(node.leaseMs / 20, MAX_CHECK_IN_MS), MIN_CHECK_IN_MS);
    this.cancelCheckIn = runAfter(pause, () => this.checkIn(now + pause), { keepsAlive: false });
  }

  private receive(report: HeartbeatReport): void {
    const { node, events } = this.engine;
    if (report.kind === 'failed') {
      // Once per outage.
      if (!this.heartbeatFails && !this.stopped)
        this.reportError('sending the heartbeat of the node', report.error);
      this.heartbeatFails = true;
      return;
    }
    this.heartbeatFails = false;
    if (report.kind === 'left' || report.id !== node.id || this.stopped) return;
    if (report.kind === 'ended') {
      this.fence(report.reason === 'lost' ? 'declared' : 'silent');
      void this.joinAsNew();
      return;
    }
    this.suspects.expect(report.hasSuspects);
    if (report.kind === 'renewed') return;
    node.fenced = false;
    events.emit('node.joined', { node: report.id });
  }

  /** Stops the runs. They return to the queue without costing a retry if they still belong to this node. Idempotent. */
  private fence(why: 'silent' | 'declared'): void {
    const { node, events } = this.engine;
    if (node.fenced) return;
    node.fenced = true;
    const running = this.processes.all();
    this.leases.stopRenewing();
    this.heartbeat?.fence(node.id);
    events.emit('node.fenced', { node: node.id, why, running: running.length });
    for (const process of running) void this.killer.stopProcess(process, { kind: 'interrupted' });
  }

  /** The former incarnation has ended in the database. Never rejects. */
  private async joinAsNew(): Promise<void> {
    const { node } = this.engine;
    const released = this.claims
      .release(this.prefetch.clear(), node.id)
      .catch((error: unknown) => this.reportError('releasing claims', error));
    await waitAtMost(RELEASE_MS, released);
    if (this.stopped) return;
    node.startNewIncarnation();
    this.heartbeat?.join(this.identity());
  }

  private reportError(doing: string, error: unknown): void {
    this.engine.events.emit('engine.error', { doing, error });
  }

  private identity(): NodeIdentity {
    const { node, settings } = this.engine;
    return {
      id: node.id,
      engineName: settings.name,
      host: hostname(),
      pid: process.pid,
      version: PACKAGE_VERSION,
      templateCodes: this.handlers.codes(),
      concurrency: settings.concurrency,
    };
  }
}

const isDebugged = (() => {
  try {
    const inspector = process.getBuiltinModule('node:inspector');
    return () => inspector.url() !== undefined;
  } catch {
    // This Node.js was built without the inspector.
    return () => false;
  }
})();
