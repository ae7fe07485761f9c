import type { Background } from '../concurrency/background.js';
import { runEveryShifted, type Ticker } from '../concurrency/timers.js';
import { waitAtMost } from '../concurrency/timers.js';
import type { EngineContext } from '../database/engine-context.js';
import type { Killer } from '../lifecycle/run/killer.js';
import type { ProcessRegistry } from '../lifecycle/run/process-registry.js';
import type { RunJobs } from '../lifecycle/run/run-jobs.js';
import type { Membership } from '../membership/membership.js';
import type { RunLeases } from '../membership/run-leases.js';
import type { NotificationBus } from '../notifications/notification-bus.js';
import type { WakeUps } from '../notifications/wake-ups.js';
import type { EnginePass } from './pass.js';
import type { Slots } from './slots.js';

const RELEASE_EVERY_MS = 1_000;
/** Limit for recording the last outcomes at shutdown. */
const RECORD_MS = 5_000;
/** Limit for stopping the background parts at shutdown. */
const LEAVE_MS = 4_000;

interface BackgroundParts {
  membership: Membership;
  wakeUps: WakeUps;
  bus: NotificationBus;
  hostConnections: Background;
}

/** Starts and stops a node's background work: passes, claims, leases, notifications. */
export class Engine {
  private readonly stopTimers: (() => void)[] = [];
  private stopped: Promise<void> | undefined;

  constructor(
    private readonly context: EngineContext,
    private readonly pass: EnginePass,
    private readonly slots: Slots,
    private readonly killer: Killer,
    private readonly leases: RunLeases,
    private readonly runs: RunJobs,
    private readonly processes: ProcessRegistry,
    private readonly ticker: Ticker,
    private readonly background: BackgroundParts,
  ) {}

  /** Never rejects. */
  async start(): Promise<void> {
    const { node, settings, events } = this.context;
    const { membership, wakeUps, bus } = this.background;
    const { role, tickInterval } = settings;
    // The app may be closed before it has started.
    if (node.closing) return;
    const startsByItself = role !== 'producer' && tickInterval !== false;
    wakeUps.start(startsByItself ? () => this.startDueJobs() : undefined);
    if (role === 'producer') return;
    await membership.join();
    if (node.closing) return;
    node.started = true;
    this.killer.start();
    this.leases.start();
    this.stopTimers.push(
      runEveryShifted(RELEASE_EVERY_MS, () =>
        this.inBackground('releasing claims', this.slots.releaseOldPrefetched()),
      ),
    );
    if (tickInterval === false) return;
    this.stopTimers.push(this.ticker.every('tick', tickInterval, () => this.tick()));
    const refill = () => this.inBackground('filling free slots', this.slots.refillSlots());
    this.processes.watch({ removed: refill });
    // Unrecorded outcomes may have blocked the slots.
    events.on('run.finished', ({ entry }) =>
      entry === 'reopened' ? this.startDueJobs({ fromHead: true }) : refill(),
    );
    events.on('node.joined', () => this.startDueJobs({ fromHead: true }));
    bus.listen();
    this.tick();
  }

  /** Stops claiming. Running jobs continue. */
  close(): void {
    this.context.node.closing = true;
  }

  /**
   * Stops claiming, lets running jobs finish, aborts the rest and returns it to the queue without costing a retry.
   * Idempotent; safe if never started. Never rejects.
   */
  stop(): Promise<void> {
    this.stopped ??= this.shutDown();
    return this.stopped;
  }

  private async shutDown(): Promise<void> {
    this.close();
    const released = this.guarded('releasing claims', async () => {
      await this.pass.waitUntilIdle();
      await this.slots.waitUntilIdle();
      await this.slots.releasePrefetched();
    });
    await waitAtMost(
      this.context.settings.shutdown.drainTimeout,
      released.then(() => this.processes.waitUntilEmpty()),
    );
    await Promise.all(
      this.processes
        .all()
        .map((process) => this.killer.stopProcess(process, { kind: 'interrupted' })),
    );
    await waitAtMost(RECORD_MS, Promise.all([released, this.runs.waitForRecords()]));
    this.runs.stopRecording();
    for (const stop of this.stopTimers.splice(0)) stop();
    const { membership, bus, hostConnections } = this.background;
    const all = [this.killer, this.leases, membership, bus, hostConnections];
    await waitAtMost(LEAVE_MS, Promise.all(all.map((part) => part.stop())));
  }

  private tick(): void {
    if (this.context.node.closing) return;
    const work = async () => {
      const { alreadyRunning } = await this.pass.run({ insist: false });
      if (alreadyRunning) await this.slots.fillSlots();
      else await this.slots.refillSlots();
    };
    this.inBackground('running a pass of the engine', work());
  }

  private startDueJobs({ fromHead = false } = {}): void {
    this.inBackground('starting due jobs', this.slots.startDueJobs({ fromHead }));
  }

  /** Called for each job: creates no promise if there is nothing to wait for. */
  private inBackground(doing: string, work: Promise<void> | undefined): void {
    if (work) void this.guarded(doing, () => work);
  }

  /** Nothing in the background may become an unhandled rejection. */
  private async guarded(doing: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.leases.recordFailure();
      this.context.events.emit('engine.error', { doing, error });
    }
  }
}
