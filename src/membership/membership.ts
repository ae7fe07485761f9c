import { hostname } from 'node:os';
import type { ClaimJobs } from '../lifecycle/claim/claim.js';
import type { Store } from '../database/store.js';
import type { JobEvents } from '../job/events.js';
import type { NodeState } from '../job/node-state.js';
import type { Settings } from '../options/settings.js';
import { PACKAGE_VERSION } from '../job/package-version.js';
import type { HandlerRegistry } from '../lifecycle/handler-registry.js';
import type { ProcessRegistry } from '../lifecycle/run/process-registry.js';
import { registerNode, type NodeFacts } from './node.sql.js';
import type { ClaimsAhead } from '../node/prefetch.js';
import type { Heartbeat } from './heartbeat.js';
import type { Killer } from '../node/killer.js';
import { startPulse, type PulseHost } from './heartbeat-host.js';
import { monotonicMs, PulseMemory, trustedUntil } from './memory-sample.js';
import type { PulseNews } from './node-heartbeat.js';
import type { Suspects } from '../node/suspects.js';
import { runAfter, waitAtMost } from '../concurrency/timers.js';

const LONGEST_TURN_MS = 250;
const SHORTEST_TURN_MS = 20;
/** An answer that takes longer is not waited for at boot. */
const JOIN_MS = 5_000;
/** Claims that were never launched are given back before the node begins anew, if the database is that fast. */
const RELEASE_MS = 5_000;

/**
 * This node among the others. It joins under an id, its pulse says that it is alive, and it stops by itself
 * when the database may have come to think otherwise: before its lease is over it claims nothing, and aborts what
 * it runs. When the database is back it begins anew under another id.
 */
export class Membership {
  private readonly memory = new PulseMemory();
  private pulse: PulseHost | null = null;
  private failing = false;
  private over = false;
  private nextTurn: (() => void) | undefined;

  constructor(
    private readonly store: Store,
    private readonly claims: ClaimJobs,
    private readonly handlers: HandlerRegistry,
    private readonly processes: ProcessRegistry,
    private readonly ahead: ClaimsAhead,
    private readonly heartbeat: Heartbeat,
    private readonly killer: Killer,
    private readonly suspects: Suspects,
    private readonly events: JobEvents,
    private readonly node: NodeState,
    private readonly settings: Settings,
  ) {}

  /**
   * Before anything is claimed: a job that kills the node in its first moments is to be charged with it. If the
   * database does not answer now, the pulse goes on trying, and the runs are kept by their own leases meanwhile.
   * Never rejects.
   */
  async join(): Promise<void> {
    this.node.isTrusted = () => monotonicMs() < this.memory.trustedUntil;
    this.turn(monotonicMs());
    await waitAtMost(JOIN_MS, this.register());
    if (this.over) return;
    this.pulse = startPulse(
      this.store,
      this.memory,
      this.settings.maxEventLoopBlock,
      (news) => this.heard(news),
      (error) =>
        this.events.emit('engine.error', {
          doing: 'beating in a thread of its own, instead of the main one,',
          error,
        }),
    );
    this.pulse?.join(this.facts());
  }

  /** Not by the pulse, whose thread takes a tenth of a second to begin; for it this is a beat of before. */
  private async register(): Promise<void> {
    const { db, tables } = this.store;
    const { leaseMs } = this.node;
    const sentAt = monotonicMs();
    try {
      await registerNode(db, tables, this.facts(), leaseMs);
      this.memory.trustUntil(trustedUntil(sentAt, leaseMs));
    } catch (error) {
      this.events.emit('engine.error', { doing: 'joining the nodes', error });
    }
  }

  /** Safe if never joined. Never rejects. */
  async leave(withinMs: number): Promise<void> {
    this.over = true;
    await this.pulse?.leave(withinMs);
    this.nextTurn?.();
  }

  /** Shows that the event loop turns, and sees whether the node is trusted still. */
  private turn(due: number): void {
    const now = monotonicMs();
    this.memory.turned(now);
    this.memory.lagged(now - due);
    this.node.lagMs = Math.max(now - due, 0);
    this.memory.leaseMs = this.node.leaseMs;
    this.memory.running = this.processes.size;
    this.memory.debugged = isDebugged();
    if (!this.over && !this.node.isTrusted()) this.fence('silent');
    const pause = Math.max(Math.min(this.node.leaseMs / 20, LONGEST_TURN_MS), SHORTEST_TURN_MS);
    this.nextTurn = runAfter(pause, () => this.turn(now + pause), {
      keepsAlive: false,
    });
  }

  private heard(news: PulseNews): void {
    if (news.kind === 'failed') {
      // Once for each time the database is away.
      if (!this.failing && !this.over)
        this.events.emit('engine.error', {
          doing: "the node's beat",
          error: news.error,
        });
      this.failing = true;
      return;
    }
    this.failing = false;
    if (news.kind === 'left' || news.id !== this.node.id || this.over) return;
    if (news.kind === 'over') {
      this.fence(news.reason === 'lost' ? 'declared' : 'silent');
      void this.beginAnew();
      return;
    }
    this.suspects.tell(news.suspects);
    if (news.kind === 'beat') return;
    this.node.fenced = false;
    this.events.emit('node.joined', { node: news.id });
  }

  /** Idempotent. What runs is told to stop, and given back uncounted as far as it is this node's still. */
  private fence(why: 'silent' | 'declared'): void {
    if (this.node.fenced) return;
    this.node.fenced = true;
    const running = this.processes.all();
    this.heartbeat.disown();
    this.pulse?.fence(this.node.id);
    this.events.emit('node.fenced', {
      node: this.node.id,
      why,
      running: running.length,
    });
    for (const process of running) void this.killer.stop(process, { kind: 'interrupted' });
  }

  /** The former incarnation has ended in the database. Never rejects. */
  private async beginAnew(): Promise<void> {
    const former = this.node.id;
    const released = this.claims.release(this.ahead.clear(), former).catch((error: unknown) =>
      this.events.emit('engine.error', {
        doing: 'giving back claims',
        error,
      }),
    );
    await waitAtMost(RELEASE_MS, released);
    if (this.over) return;
    this.node.beginAnew();
    this.pulse?.join(this.facts());
  }

  private facts(): NodeFacts {
    return {
      id: this.node.id,
      engineName: this.settings.name,
      host: hostname(),
      pid: process.pid,
      version: PACKAGE_VERSION,
      templateCodes: this.handlers.codes(),
      concurrency: this.settings.concurrency,
    };
  }
}

const isDebugged = (() => {
  try {
    const inspector = process.getBuiltinModule('node:inspector');
    return () => inspector.url() !== undefined;
  } catch {
    // A Node built without it.
    return () => false;
  }
})();
