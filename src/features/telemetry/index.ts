import type * as Api from '@opentelemetry/api';
import { BildadConfigError } from '../../job/errors.js';
import { measure } from './measure.js';
import type { Measured } from './measured.js';
import { otelSink } from './otel-metrics.js';
import { traceJobs } from './otel-traces.js';

export { measure } from './measure.js';
export type { Measured } from './measured.js';

/** What the option `telemetry` asks for; without it not even the package is loaded. @throws BildadConfigError where that is missing */
export async function telemetry(bildad: Measured): Promise<(() => void) | void> {
  const { traces, metrics } = bildad.settings.telemetry;
  if (!traces && !metrics) return;
  const api = await loadApi();
  const stops = [
    ...(traces ? [traceJobs(bildad, api)] : []),
    ...(metrics ? [measure(bildad, otelSink(api))] : []),
  ];
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
