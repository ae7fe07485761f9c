import type { JobEventMap } from '../../job/events.js';
import { DESTINATION, ERROR, OPERATION, SYSTEM, type MetricAttributes } from '../../job/metrics.js';
import { faultOf } from './fault.js';
import type { Series } from './series.js';

type End = Pick<JobEventMap['run.finished'][0], 'outcome' | 'entry' | 'errorName'>;

interface EndSeries {
  /** Of what the run took. */
  took: MetricAttributes;
  ended: MetricAttributes;
}

const MOST_KINDS = 500;

/** The sets of attributes of each kind of jobs, at hand: a job that takes microseconds asks for four. */
export class Kinds {
  private readonly byCode = new Map<string, Kind>();

  constructor(private readonly series: Series) {}

  of(code: string): Kind {
    let kind = this.byCode.get(code);
    if (!kind) {
      kind = new Kind(this.series, code);
      if (this.byCode.size < MOST_KINDS) this.byCode.set(code, kind);
    }
    return kind;
  }
}

class Kind {
  readonly itself: MetricAttributes;
  readonly begin: MetricAttributes;
  /** Nearly all end in one of few ways. */
  private readonly ends = new Map<string, EndSeries>();
  private readonly done: EndSeries;

  constructor(
    private readonly series: Series,
    private readonly code: string,
  ) {
    this.itself = series.of(`code ${code}`, () => ({
      [DESTINATION]: code,
    }));
    this.begin = series.of(`begin ${code}`, () => this.processing());
    this.done = this.endSeries({ outcome: 'completed', entry: 'removed' });
  }

  end(end: End): EndSeries {
    if (end.outcome === 'completed' && end.entry === 'removed') return this.done;
    const key = `${end.outcome} ${end.entry} ${end.errorName ?? ''}`;
    let series = this.ends.get(key);
    if (!series) {
      series = this.endSeries(end);
      if (this.ends.size < MOST_KINDS) this.ends.set(key, series);
    }
    return series;
  }

  private endSeries({ outcome, entry, errorName }: End): EndSeries {
    const { series, code } = this;
    return {
      took: series.of(`took ${outcome} ${errorName ?? ''} ${code}`, () => ({
        ...this.processing(),
        'bildad.outcome': outcome,
        [ERROR]: errorName ?? faultOf(outcome),
      })),
      ended: series.of(`ended ${outcome} ${entry} ${code}`, () => ({
        [DESTINATION]: code,
        'bildad.outcome': outcome,
        'bildad.entry': entry,
      })),
    };
  }

  private processing() {
    return {
      [SYSTEM]: 'bildad',
      [OPERATION]: 'process',
      [DESTINATION]: this.code,
    };
  }
}
