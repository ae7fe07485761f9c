import type { JobEvents } from '../../job/events.js';
import {
  DESTINATION,
  METRICS,
  type GaugeReading,
  type MetricAttributes,
  type MetricDefinition,
} from '../../job/metrics.js';
import type { Measured } from './measured.js';
import type { Series } from './series.js';

const STATES = ['due', 'scheduled', 'running', 'quarantined'] as const;

const GAUGES: readonly MetricDefinition[] = Object.values<MetricDefinition>(METRICS).filter(
  ({ kind }) => kind === 'gauge',
);

/** What an engine's gauges are now. Of a template that has had a value there is one from then on. */
export function readGauges(
  { processes, runs, settings, depths }: Measured,
  on: JobEvents['on'],
  series: Series,
) {
  let away = false;
  on('database.lost', () => (away = true));
  on('database.back', () => (away = false));
  const seen = new Set<string>();
  const all = series.of('', () => ({}));
  const ofCode = (code: string) => series.of(`code ${code}`, () => ({ [DESTINATION]: code }));

  const running = (): GaugeReading[] => {
    const counts = new Map<string, number>();
    for (const code of seen) counts.set(code, 0);
    for (const { run } of processes.all()) {
      seen.add(run.templateCode);
      counts.set(run.templateCode, (counts.get(run.templateCode) ?? 0) + 1);
    }
    return [...counts].map(([code, value]) => ({
      gauge: METRICS.running,
      value,
      attributes: ofCode(code),
    }));
  };

  const queue = async (): Promise<GaugeReading[]> =>
    (await depths()).flatMap((depth) => [
      ...STATES.map((state) => ({
        gauge: METRICS.queued,
        value: depth[state],
        attributes: series.of(`${state} ${depth.code}`, () => ({
          [DESTINATION]: depth.code,
          'bildad.state': state,
        })),
      })),
      {
        gauge: METRICS.oldest,
        value: (depth.oldestMs ?? 0) / 1_000,
        attributes: ofCode(depth.code),
      },
    ]);

  const read = async (): Promise<GaugeReading[]> =>
    joined([
      ...running(),
      ...[
        [METRICS.away, Number(away)] as const,
        [METRICS.slots, settings.concurrency] as const,
        [METRICS.backlog, runs.backlog] as const,
      ].map(([gauge, value]) => ({ gauge, value, attributes: all })),
      ...(away ? [] : await queue()),
    ]);
  return { of: GAUGES, read };
}

/** Of codes that are not told apart a sink would keep the last reading alone: counts are added, of ages the greatest stands. */
function joined(readings: readonly GaugeReading[]): GaugeReading[] {
  const byGauge = new Map<MetricDefinition, Map<MetricAttributes, GaugeReading>>();
  for (const reading of readings) {
    const { gauge, attributes } = reading;
    const those = byGauge.get(gauge) ?? new Map<MetricAttributes, GaugeReading>();
    byGauge.set(gauge, those);
    const other = those.get(attributes);
    those.set(attributes, other ? both(other, reading) : reading);
  }
  return [...byGauge.values()].flatMap((those) => [...those.values()]);
}

const both = (one: GaugeReading, other: GaugeReading): GaugeReading => ({
  ...one,
  value: one.gauge === METRICS.oldest ? Math.max(one.value, other.value) : one.value + other.value,
});
