import type * as Api from '@opentelemetry/api';
import { BildadConfigError } from '../../job/errors.js';
import { measure, type MeasuredEngine } from './measure.js';
import { otelSink } from './otel-metrics.js';
import { traceJobs } from './otel-traces.js';

export { measure, measuredEngine } from './measure.js';

/**
 * The module option `telemetry`. Without it the OpenTelemetry package is not loaded.
 * @throws BildadConfigError when it is missing
 */
export async function startTelemetry(measured: MeasuredEngine): Promise<(() => void) | void> {
  const { traces, metrics } = measured.settings.telemetry;
  if (!traces && !metrics) return;
  const api = await loadApi();
  const stops: (() => void)[] = [];
  if (traces) stops.push(traceJobs(measured, api));
  if (metrics) stops.push(measure(measured, otelSink(api)));
  return () => {
    for (const stop of stops) stop();
  };
}

async function loadApi(): Promise<typeof Api> {
  try {
    return await import('@opentelemetry/api');
  } catch (error) {
    throw new BildadConfigError(
      'telemetry',
      'needs the package @opentelemetry/api, which could not be loaded (npm install @opentelemetry/api, and an SDK)',
      { cause: error },
    );
  }
}
