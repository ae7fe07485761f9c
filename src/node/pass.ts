import { waitAtMost } from '../concurrency/timers.js';
import { ConnectionLostError } from '../database/connection/connection-errors.js';
import type { EngineContext } from '../database/engine-context.js';
import type { ExtensionPoints, PassStep } from '../lifecycle/extension-points.js';
import type { RunLeases } from '../membership/run-leases.js';
import type { ExpireRuns } from './pass-steps.js';
import { guardLeaseMs, PassGuard, StepTimes } from './pass.sql.js';
import type { SchemaVersionCheck } from './schema-version-check.js';
import { countOutcomes, type JobOutcome, type Slots } from './slots.js';

export interface JobEngineResults {
  start: JobOutcome[];
  expire: JobOutcome[];
  /** A pass was running, here or on another node. It runs one more round for this request. */
  alreadyRunning: boolean;
}

const DOING = 'running a pass of the engine';
/** With a short lease, a busy machine must not look like a step that hangs. */
const MIN_STEP_MS = 5_000;

/**
 * The engine's pass, one node at a time: it runs the pass steps (`ExtensionPoints.passSteps`: expire runs, make scheduled jobs
 * due, prune, ...), then starts available jobs by priority and age. The number of its statements is constant. Between
 * passes, and while another node runs one, a node fills its own slots.
 *
 * A step that throws is reported and does not stop the others. A step has a deadline, half the lease of the guard. When it
 * exceeds the lease (at least 5 s), the pass continues without it, and later passes skip it until it has ended.
 */
export class EnginePass {
  private readonly guard: PassGuard;
  private readonly times: StepTimes;
  /** Running steps; those of earlier passes exceeded their time. */
  private readonly runningSteps = new Set<PassStep>();
  private pass: Promise<JobEngineResults> | undefined;
  private anotherRound = false;

  constructor(
    private readonly engine: EngineContext,
    private readonly extensions: ExtensionPoints,
    private readonly expireRuns: ExpireRuns,
    private readonly versions: SchemaVersionCheck,
    private readonly leases: RunLeases,
    private readonly slots: Slots,
  ) {
    this.guard = new PassGuard(engine);
    this.times = new StepTimes(engine);
  }

  /** @param insist if a pass is running, here or on another node, request one more round from it */
  run({ insist = true } = {}): Promise<JobEngineResults> {
    // A closing node would keep the guard for a lease: its connections may be gone before it is released.
    if (this.engine.node.closing)
      return Promise.resolve({ ...emptyResults(), alreadyRunning: false });
    if (this.pass) {
      this.anotherRound ||= insist;
      return Promise.resolve(emptyResults());
    }
    this.pass = this.runPasses(insist);
    return this.pass;
  }

  /** Resolves when no pass is running. */
  async waitUntilIdle(): Promise<void> {
    while (this.pass) await this.pass.catch(() => undefined);
  }

  /**
   * Runs a pass, and one more for requests that arrived while its guard was released. Later requests get a pass in the
   * background, so a caller does not wait for the requests of others. Nothing is awaited between the last check of
   * `anotherRound` and the end of the pass, so no request is lost.
   */
  private async runPasses(insist: boolean): Promise<JobEngineResults> {
    const { node, events } = this.engine;
    try {
      const results = await this.runGuarded(insist);
      if (this.anotherRound && !node.closing) {
        const more = await this.runGuarded(true);
        results.start.push(...more.start);
        results.expire.push(...more.expire);
        results.alreadyRunning &&= more.alreadyRunning;
      }
      return results;
    } finally {
      this.pass = undefined;
      if (this.anotherRound && !node.closing) {
        this.anotherRound = false;
        this.run().catch((error: unknown) => events.emit('engine.error', { doing: DOING, error }));
      }
    }
  }

  private async runGuarded(insist: boolean): Promise<JobEngineResults> {
    this.anotherRound = false;
    const results = emptyResults();
    // Not a step: nodes that get no guard have to notice an upgrade too.
    if (!(await this.versions.isUsable())) return { ...results, alreadyRunning: false };
    const term = await this.guard.acquire(insist);
    if (term === null) return results;
    results.alreadyRunning = false;
    try {
      await this.runRound(results, term, insist);
      if (this.anotherRound || (await this.guard.release(term))) {
        this.anotherRound = false;
        await this.runRound(results, term, insist);
        // Another node has requested a round again: it gets a pass of its own.
        if (await this.guard.release(term)) {
          this.anotherRound = true;
          await this.guard.drop(term);
        }
      }
    } catch (error) {
      this.leases.recordFailure();
      await this.guard.drop(term).catch(() => undefined);
      throw error;
    }
    const { start, expire } = results;
    this.engine.events.emit('engine.pass', {
      node: this.engine.node.id,
      term,
      started: countOutcomes(start).okCount,
      expired: countOutcomes(expire).okCount,
      errors: countOutcomes([...start, ...expire]).errorCount,
    });
    return results;
  }

  private async runRound(results: JobEngineResults, term: string, insist: boolean): Promise<void> {
    await this.runSteps(term);
    results.expire.push(...this.expireRuns.takeOutcomes());
    results.start.push(...(await this.slots.claimForPass(insist ? 'head' : 'headIfCheap')));
  }

  private async runSteps(term: string): Promise<void> {
    const leaseMs = guardLeaseMs(this.engine.node.leaseMs);
    let guardedUntil = performance.now() + leaseMs;
    const { active = [] } = this.extensions.passSteps;
    const steps = active.filter((step) => !this.runningSteps.has(step));
    for (const step of await this.times.claimDueSteps(steps)) {
      const now = performance.now();
      if (guardedUntil - now < leaseMs / 2) {
        // Another node has taken over: its pass runs the other steps.
        if (!(await this.guard.renew(term))) return;
        guardedUntil = now + leaseMs;
      }
      await this.runStep(step, term, now + leaseMs / 2, guardedUntil);
    }
  }

  /** @throws ConnectionLostError: the other steps would fail too */
  private async runStep(
    step: PassStep,
    term: string,
    deadline: number,
    guardedUntil: number,
  ): Promise<void> {
    const { store, events } = this.engine;
    const doing = `${DOING} (${step.name})`;
    let lost: ConnectionLostError | undefined;
    const run = async () => {
      try {
        const more = await step.run({ db: store.db, term, deadline });
        this.times.recordRun(step, more === 'more');
      } catch (error) {
        if (error instanceof ConnectionLostError) lost = error;
        else events.emit('engine.error', { doing, error });
      } finally {
        this.runningSteps.delete(step);
      }
    };
    const begin = performance.now();
    this.runningSteps.add(step);
    await waitAtMost(Math.max(guardedUntil - begin, MIN_STEP_MS), run());
    if (lost) throw lost;
    if (!this.runningSteps.has(step)) return;
    const ms = Math.round(performance.now() - begin);
    const error = new Error(`the step has not ended after ${ms} ms; the pass continues without it`);
    events.emit('engine.error', { doing, error });
  }
}

const emptyResults = (): JobEngineResults => ({ start: [], expire: [], alreadyRunning: true });
