import type * as Api from '@opentelemetry/api';
import type { MetricAttributes, MetricDefinition, MetricSink } from '../../job/metrics.js';
import { PACKAGE_VERSION } from '../../job/package-version.js';

/** OpenTelemetry as a sink: the meter of the SDK that the app has registered. */
export function otelSink({ metrics }: typeof Api): MetricSink {
  const meter = metrics.getMeter('nestjs-bildad', PACKAGE_VERSION);
  const optionsOf = ({ unit, description, buckets }: MetricDefinition) => ({
    unit,
    description,
    ...(buckets && { advice: { explicitBucketBoundaries: [...buckets] } }),
  });
  return {
    instrument: (metric) => {
      if (metric.kind === 'histogram') {
        const histogram = meter.createHistogram(metric.name, optionsOf(metric));
        return (value, attributes) => histogram.record(value, attributes);
      }
      // Added up here: an SDK takes up to 3 us to look up the attributes of each value.
      const sums = new Map<MetricAttributes, number>();
      meter
        .createObservableCounter(metric.name, optionsOf(metric))
        // Never removed: the last counts are collected after the engine stopped.
        .addCallback((result) => {
          for (const [attributes, sum] of sums) result.observe(sum, attributes);
        });
      return (value, attributes) => void sums.set(attributes, (sums.get(attributes) ?? 0) + value);
    },
    observe: (gauges, read) => {
      const made = new Map(
        gauges.map((gauge) => [
          gauge.name,
          meter.createObservableGauge(gauge.name, optionsOf(gauge)),
        ]),
      );
      const collect: Api.BatchObservableCallback = async (result) => {
        for (const { gauge, value, attributes } of await read())
          result.observe(made.get(gauge.name)!, value, attributes);
      };
      const observed = [...made.values()];
      meter.addBatchObservableCallback(collect, observed);
      return () => meter.removeBatchObservableCallback(collect, observed);
    },
  };
}
