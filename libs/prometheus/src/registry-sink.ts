import type {
  JobEngineService,
  GaugeReading,
  MetricAttributes,
  MetricDefinition,
  MetricSink,
  RecordMetric,
} from 'nestjs-bildad';
import { type Registry, Counter, Gauge, Histogram } from 'prom-client';

const sinks = new WeakMap<Registry, RegistrySink>();

/**
 * Adds an engine's metrics (`BILDAD_METRICS`) to a registry of prom-client. Several engines may
 * share a registry: their series differ by `bildad_engine`.
 * @returns stops it: counts stay, gauges end
 * @throws Error when the registry has another metric of the same name
 */
export function collectBildad(
  engine: Pick<JobEngineService, 'measure'>,
  registry: Registry,
): () => void {
  let sink = sinks.get(registry);
  if (!sink?.isRegistered) sinks.set(registry, (sink = new RegistrySink(registry)));
  return engine.measure(sink);
}

type Read = () => Promise<readonly GaugeReading[]>;

/** A registry of prom-client as a sink, shared by its engines. */
export class RegistrySink implements MetricSink {
  private readonly recorders = new Map<string, RecordMetric>();
  private readonly gauges = new Map<string, Gauge>();
  private readonly readers = new Set<Read>();
  private readonly names: string[] = [];
  private reading: Promise<void> | undefined;

  constructor(private readonly registry: Registry) {}

  /** False after `registry.clear()`, which tests often call. */
  get isRegistered(): boolean {
    return this.names.every((name) => this.registry.getSingleMetric(name));
  }

  instrument(definition: MetricDefinition): RecordMetric {
    let record = this.recorders.get(definition.name);
    if (!record) this.recorders.set(definition.name, (record = this.made(definition)));
    return record;
  }

  observe(gauges: readonly MetricDefinition[], read: Read): () => void {
    for (const gauge of gauges) if (!this.gauges.has(gauge.name)) this.addGauge(gauge);
    this.readers.add(read);
    return () => void this.readers.delete(read);
  }

  private made(definition: MetricDefinition): RecordMetric {
    if (definition.kind === 'histogram') {
      const histogram = new Histogram({
        ...this.configOf(definition),
        ...(definition.buckets && { buckets: [...definition.buckets] }),
      });
      const seriesOf = cached((attributes) => histogram.labels(labelsOf(attributes)));
      return (value, attributes) => seriesOf(attributes).observe(value);
    }
    const counter = new Counter(this.configOf(definition));
    const seriesOf = cached((attributes) => counter.labels(labelsOf(attributes)));
    return (value, attributes) => seriesOf(attributes).inc(value);
  }

  private addGauge(definition: MetricDefinition): void {
    // A scrape collects all gauges at once: they share one read.
    const collect = async () => {
      this.reading ??= this.read().finally(() => (this.reading = undefined));
      await this.reading;
    };
    this.gauges.set(definition.name, new Gauge({ ...this.configOf(definition), collect }));
  }

  private async read(): Promise<void> {
    const read = [...this.readers].map((reader) => reader());
    const readings = (await Promise.all(read)).flat();
    for (const gauge of this.gauges.values()) gauge.reset();
    for (const { gauge, value, attributes } of readings)
      this.gauges.get(gauge.name)?.set(labelsOf(attributes), value);
  }

  private configOf(definition: MetricDefinition) {
    this.names.push(prometheusName(definition));
    return {
      name: prometheusName(definition),
      help: definition.description,
      labelNames: definition.attributes.map(asName),
      registers: [this.registry],
    };
  }
}

const asName = (name: string) => name.replaceAll(/[^a-zA-Z0-9_]/g, '_');

/** The name that OpenTelemetry's Prometheus exporter would make, so that dashboards fit both. */
export function prometheusName({ name, kind, unit }: MetricDefinition): string {
  const seconds = unit === 's' ? '_seconds' : '';
  return `${asName(name)}${seconds}${kind === 'counter' ? '_total' : ''}`;
}

const labelsOf = (attributes: MetricAttributes): Record<string, string> =>
  Object.fromEntries(Object.entries(attributes).map(([name, value]) => [asName(name), value]));

/** Caches by attribute set: equal sets are the same object. */
function cached<T>(make: (attributes: MetricAttributes) => T) {
  const made = new WeakMap<MetricAttributes, T>();
  return (attributes: MetricAttributes): T => {
    let one = made.get(attributes);
    if (!one) made.set(attributes, (one = make(attributes)));
    return one;
  };
}
