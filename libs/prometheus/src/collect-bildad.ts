import type { JobEngineService } from 'nestjs-bildad';
import type { Registry } from 'prom-client';
import { RegistrySink } from './registry-sink.js';

const sinks = new WeakMap<Registry, RegistrySink>();

/**
 * Has an engine's metrics (`BILDAD_METRICS`) in a registry of prom-client, beside whatever else is in it. Several engines
 * may share one: their series differ by `bildad_engine`.
 * @returns how to end that: the counts stay, the gauges go
 * @throws Error where the registry has another metric of one of the names
 */
export function collectBildad(
  engine: Pick<JobEngineService, 'measure'>,
  registry: Registry,
): () => void {
  let sink = sinks.get(registry);
  if (!sink?.isRegistered) sinks.set(registry, (sink = new RegistrySink(registry)));
  return engine.measure(sink);
}
