import { measure } from '../../features/telemetry/index.js';
import type { Duration } from '../../job/duration.js';
import type { MetricSink } from '../../job/metrics.js';
import { BothEnds } from './both-ends.js';
import { healthOf, livenessOf, type BildadHealth, type BildadLiveness } from '../health/health.js';
import { measured } from '../health/measured.js';

/** The part of `JobEngineService` for who watches over an engine. */
export abstract class WatchedEngine extends BothEnds {
  /** What this process knows of itself; the database is not asked. Never throws. */
  liveness(): BildadLiveness {
    return livenessOf(this.bildad);
  }

  /**
   * What an operator, or a readiness probe, wants to know: facts, and no verdict on them. Never rejects: that the database
   * cannot be reached is a fact as well. A statement that reaches its rows through indexes, and one every ten seconds that
   * looks for what nobody can run.
   * @param options.timeout how long the database may take to answer. Default `'2s'`
   * @throws BildadConfigError when `timeout` is no duration
   */
  async health(options: { timeout?: Duration } = {}): Promise<BildadHealth> {
    return healthOf(this.bildad, options);
  }

  /**
   * Tells a sink of yours all of the engine's metrics (`BILDAD_METRICS`), as `telemetry` tells OpenTelemetry and
   * `nestjs-bildad/prometheus` a registry. What was counted before is not told. @returns how to end that
   */
  measure(sink: MetricSink): () => void {
    return measure(measured(this.bildad), sink);
  }
}
