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

type Read = () => Promise<readonly GaugeReading[]>;

/** A registry of prom-client as a sink, for all engines that tell it something. */
export class RegistrySink implements MetricSink {
  private readonly recorders = new Map<string, RecordMetric>();
  private readonly gauges = new Map<string, Gauge>();
  private readonly readers = new Set<Read>();
  private readonly names: string[] = [];
  private reading: Promise<void> | undefined;

  constructor(private readonly registry: Registry) {}

  /** False after a `registry.clear()`, as is usual between tests. */
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
      const seriesOf = once((attributes) => histogram.labels(labelsOf(attributes)));
      return (value, attributes) => seriesOf(attributes).observe(value);
    }
    const counter = new Counter(this.configOf(definition));
    const seriesOf = once((attributes) => counter.labels(labelsOf(attributes)));
    return (value, attributes) => seriesOf(attributes).inc(value);
  }

  private addGauge(definition: MetricDefinition): void {
    // A scrape collects all of them at the same time: one of them asks.
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

/** As OpenTelemetry's own translation has it, so that a dashboard fits both. */
export function prometheusName({ name, kind, unit }: MetricDefinition): string {
  const seconds = unit === 's' ? '_seconds' : '';
  return `${asName(name)}${seconds}${kind === 'counter' ? '_total' : ''}`;
}

const labelsOf = (attributes: MetricAttributes): Record<string, string> =>
  Object.fromEntries(Object.entries(attributes).map(([name, value]) => [asName(name), value]));

/** Sets of attributes are the same objects each time. */
function once<T>(make: (attributes: MetricAttributes) => T) {
  const made = new WeakMap<MetricAttributes, T>();
  return (attributes: MetricAttributes): T => {
    let one = made.get(attributes);
    if (!one) made.set(attributes, (one = make(attributes)));
    return one;
  };
}
