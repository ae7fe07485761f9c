import type { RunJobs } from '../lifecycle/run/run.js';
import type { JobEvents } from '../job/events.js';
import type { NodeState } from '../job/node-state.js';
import type { Settings } from '../options/settings.js';
import type { ProcessRegistry } from '../lifecycle/run/process-registry.js';
import type { HostPools } from '../database/connection/host-pools.js';
import type { EngineCycle } from './pass.js';
import { BEATS_PER_LEASE } from '../membership/heartbeats-per-lease.js';
import type { Heartbeat } from '../membership/heartbeat.js';
import type { Killer } from './killer.js';
import type { NotificationBus } from '../notifications/notification-bus.js';
import type { Membership } from '../membership/membership.js';
import type { Slots } from './slots.js';
import { runAfter, waitAtMost, runEveryShifted, type Ticker } from '../concurrency/timers.js';
import type { WakeUps } from '../notifications/wake-ups.js';

const SWEEP_MS = 1_000;
/** What recording the last outcomes may take at shutdown. */
const RECORD_MS = 5_000;
/** And taking leave of the database and of other nodes. */
const LEAVE_MS = 4_000;
/** A database that says nothing for so long will not take the host's goodbye either. */
const SILENCE_MS = 2_000;

/** Says when: ticks, sweeps and beats while it runs, and an end that leaves nothing behind. */
export class Engine {
  private readonly running: (() => void)[] = [];
  private nextBeat: (() => void) | undefined;
  /** The lease that the next beat was set for. */
  private beatLeaseMs = Infinity;
  private over = false;
  private stopped: Promise<void> | undefined;

  constructor(
    private readonly cycle: EngineCycle,
    private readonly slots: Slots,
    private readonly killer: Killer,
    private readonly heartbeat: Heartbeat,
    private readonly runs: RunJobs,
    private readonly processes: ProcessRegistry,
    private readonly ticker: Ticker,
    private readonly wakeUps: WakeUps,
    private readonly bus: NotificationBus,
    private readonly membership: Membership,
    private readonly hostPools: HostPools,
    private readonly events: JobEvents,
    private readonly node: NodeState,
    private readonly settings: Settings,
  ) {}

  /** Never rejects. */
  async start(): Promise<void> {
    const { role, tickInterval } = this.settings;
    // The app may be closed before it has started.
    if (this.node.closing) return;
    const startsByItself = role !== 'producer' && tickInterval !== false;
    this.wakeUps.start(startsByItself ? () => this.wake() : undefined);
    if (role === 'producer') return;
    await this.membership.join();
    if (this.node.closing) return;
    this.node.started = true;
    this.running.push(
      runEveryShifted(SWEEP_MS, () => {
        void this.killer.sweep();
        void this.guarded('giving back claims', () => this.slots.releaseOld());
      }),
    );
    this.beatLater();
    this.processes.watch({ added: () => this.beatInTime() });
    if (tickInterval === false) return;
    this.running.push(this.ticker.every('tick', tickInterval, () => void this.tick()));
    // Called for each job: a promise only where there is something to wait for.
    const refill = () => {
      const refilling = this.slots.refill();
      if (refilling) void this.guarded('refilling free slots', () => refilling);
    };
    this.processes.watch({ removed: refill });
    // Outcomes that waited to be recorded may have held up the slots.
    this.events.on('run.finished', ({ entry }) =>
      entry === 'reopened' ? this.wake({ anew: true }) : refill(),
    );
    this.events.on('node.joined', () => this.wake({ anew: true }));
    this.bus.listen();
    void this.tick();
  }

  /** Something is due: this node's slots need not wait for the tick. */
  wake({ anew = false } = {}): void {
    const starting = this.slots.wake({ anew });
    if (starting) void this.guarded('starting what is due', () => starting);
  }

  /** Claims nothing from now on; what runs goes on. */
  close(): void {
    this.node.closing = true;
  }

  /**
   * Stops claiming, lets what runs finish, aborts what is left and gives it back to the queue without
   * costing a retry. Idempotent; safe if never started.
   */
  stop(): Promise<void> {
    this.stopped ??= this.shutDown();
    return this.stopped;
  }

  private async shutDown(): Promise<void> {
    this.close();
    const released = this.guarded('giving back claims', async () => {
      await this.cycle.idle();
      await this.slots.idle();
      await this.slots.release();
    });
    await waitAtMost(
      this.settings.shutdown.drainTimeout,
      released.then(() => this.processes.empty()),
    );
    await Promise.all(
      this.processes.all().map((process) => this.killer.stop(process, { kind: 'interrupted' })),
    );
    await waitAtMost(RECORD_MS, Promise.all([released, this.runs.recorded()]));
    this.runs.stopRecording();
    this.killer.close();
    this.nextBeat?.();
    for (const stop of this.running.splice(0)) stop();
    this.over = true;
    await waitAtMost(
      LEAVE_MS,
      Promise.all([
        this.bus.stop(),
        this.membership.leave(LEAVE_MS),
        this.hostPools.cutSilent(SILENCE_MS),
      ]),
    );
  }

  /** Each beat sets the next: an operator may change the lease meanwhile. */
  private beatLater(): void {
    this.beatLeaseMs = this.node.leaseMs;
    this.nextBeat = runAfter(this.beatLeaseMs / BEATS_PER_LEASE, () => {
      void this.heartbeat.beat();
      if (!this.over) this.beatLater();
    });
  }

  /** A run with a lease that was made shorter cannot wait for a beat that was set before. */
  private beatInTime(): void {
    if (this.over || this.node.leaseMs >= this.beatLeaseMs) return;
    this.nextBeat?.();
    this.beatLater();
  }

  private async tick(): Promise<void> {
    if (this.node.closing) return;
    await this.guarded('a pass of the engine', async () => {
      const { alreadyRunning } = await this.cycle.run({ insist: false });
      if (alreadyRunning) await this.slots.startAll();
      else await this.slots.refill();
    });
  }

  /** Nothing in the background may become an unhandled rejection. */
  private async guarded(doing: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.heartbeat.failed();
      this.events.emit('engine.error', { doing, error });
    }
  }
}
