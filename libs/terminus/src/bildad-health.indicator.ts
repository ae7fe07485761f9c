import { Inject, Injectable } from '@nestjs/common';
import { HealthIndicatorService, type HealthIndicatorResult } from '@nestjs/terminus';
import {
  BildadConfigError,
  JobEngineService,
  refuseUnknown,
  toMilliseconds,
  type BildadHealth,
  type BildadLiveness,
  type Duration,
} from 'nestjs-bildad';

/** Limits of readiness. By default a pod does not fail for faults that another pod or an operator has to fix. */
export interface BildadReadinessLimits {
  /** How long the database may take to answer. Default `'2s'`. */
  timeout?: Duration;
  /**
   * How long the job that would be claimed next may have waited. If the time is unknown, a pod with this limit is down, and
   * a pod without it is not. Default: no limit.
   */
  maxWait?: Duration;
  /** How long ago the node may have renewed its leases. Default: no limit. The default lease is 15 s. */
  maxHeartbeatAge?: Duration;
  /** Whether jobs that no living node can run are a fault. Default `false`: they are only counted. */
  failOnUnrunnable?: boolean;
}

export interface BildadLivenessLimits {
  /** How late the event loop may be. Default: no limit. */
  maxLag?: Duration;
}

/** Health indicator of one engine for `@nestjs/terminus`. Provide it in a module that can inject the engine. */
@Injectable()
export class BildadHealthIndicator {
  constructor(
    @Inject(HealthIndicatorService)
    private readonly indicators: HealthIndicatorService,
    @Inject(JobEngineService) private readonly engine: JobEngineService,
  ) {}

  /**
   * Readiness: the database answers, the tables fit, and the node neither stops nor has been fenced; then the limits.
   * The result of a failed check has the reasons in `why`. It contains numbers and template codes, and no identifiers.
   * @throws BildadConfigError when a limit is no duration, or not known
   */
  async isHealthy<K extends string>(
    key: K,
    limits: BildadReadinessLimits = {},
  ): Promise<HealthIndicatorResult<K>> {
    refuseUnknown(limits, READINESS, 'limits', 'isHealthy');
    const { timeout, failOnUnrunnable = false } = limits;
    if (typeof failOnUnrunnable !== 'boolean')
      throw new BildadConfigError('failOnUnrunnable', 'must be true or false', {
        got: failOnUnrunnable,
        where: 'isHealthy',
      });
    const maxWaitMs = limit(limits.maxWait, 'maxWait');
    const maxAgeMs = limit(limits.maxHeartbeatAge, 'maxHeartbeatAge');
    const health = await this.engine.health({
      ...(timeout !== undefined && { timeout }),
    });
    const { database, head, headKnown, unrunnable, heartbeatAgeMs } = health;
    const why = [
      ...troubles(health),
      !database.reachable && `the database: ${database.error}`,
      head &&
        head.waitedMs > maxWaitMs &&
        `a job of ${head.code} waits since ${Math.round(head.waitedMs)} ms`,
      database.reachable &&
        !headKnown &&
        maxWaitMs < Infinity &&
        'the wait of the next job is unknown',
      (heartbeatAgeMs ?? 0) > maxAgeMs &&
        `the last heartbeat was ${Math.round(heartbeatAgeMs!)} ms ago`,
      failOnUnrunnable &&
        unrunnable.length > 0 &&
        `no node runs ${unrunnable.map(({ code }) => code).join(', ')}`,
    ].filter((reason) => typeof reason === 'string');
    return this.answer(key, why, {
      ...numbers(health),
      database: database.reachable ? 'up' : 'down',
      waitedMs: headKnown ? Math.round(head?.waitedMs ?? 0) : null,
      unrunnable: unrunnable.reduce((sum, { count }) => sum + count, 0),
    });
  }

  /**
   * Liveness: this process, and not the database, which no restart brings back. Up, unless the event loop is later than
   * `maxLag`.
   * @throws BildadConfigError when that is no duration, or another one is named
   */
  isAlive<K extends string>(key: K, limits: BildadLivenessLimits = {}): HealthIndicatorResult<K> {
    refuseUnknown(limits, LIVENESS, 'limits', 'isAlive');
    const maxLagMs = limit(limits.maxLag, 'maxLag');
    const liveness = this.engine.liveness();
    const late = liveness.lagMs > maxLagMs;
    const why = late ? ['the event loop is late'] : [];
    return this.answer(key, why, numbers(liveness));
  }

  private answer<K extends string>(
    key: K,
    why: string[],
    data: Record<string, unknown>,
  ): HealthIndicatorResult<K> {
    const check = this.indicators.check(key);
    return why.length > 0 ? check.down({ ...data, why }) : check.up(data);
  }
}

const READINESS = ['timeout', 'maxWait', 'maxHeartbeatAge', 'failOnUnrunnable'];
const LIVENESS = ['maxLag'];

const limit = (given: Duration | undefined, name: string): number =>
  given === undefined ? Infinity : toMilliseconds(given, name);

const troubles = ({ closing, fenced, outdated }: BildadHealth) => [
  closing && 'it stops',
  fenced && 'the database does not hear of this node',
  outdated && 'the tables are newer than the package',
];

const numbers = ({ heartbeatAgeMs, lagMs, running, backlog }: BildadLiveness) => ({
  heartbeatAgeMs: heartbeatAgeMs === null ? null : Math.round(heartbeatAgeMs),
  lagMs: Math.round(lagMs),
  running,
  backlog,
});
