import type { Sample } from './scenarios/scenario.js';
import { spread, type Spread } from './statistics.js';

/** What was measured, and what went wrong: by scenario, contender and round. */
export class Results {
  /** The most that any scenario had. */
  rounds = 0;
  private readonly samples = new Map<string, Map<number, Sample>>();
  readonly failures: { scenario: string; contender: string; error: Error }[] = [];

  add(scenario: string, contender: string, round: number, sample: Sample) {
    this.rounds = Math.max(this.rounds, round + 1);
    const key = `${scenario} ${contender}`;
    const rounds = this.samples.get(key) ?? new Map<number, Sample>();
    this.samples.set(key, rounds.set(round, sample));
  }

  value(scenario: string, contender: string, round: number, metric: string): number | undefined {
    const value = this.samples.get(`${scenario} ${contender}`)?.get(round)?.[metric];
    return Number.isFinite(value) ? value : undefined;
  }

  spread(scenario: string, contender: string, metric: string): Spread | undefined {
    const rounds = this.samples.get(`${scenario} ${contender}`)?.keys() ?? [];
    const values = [...rounds].map((round) => this.value(scenario, contender, round, metric));
    return spread(values.filter((value) => value !== undefined));
  }

  roundsOf(scenario: string, contenders: string[]): number {
    return Math.max(0, ...contenders.map((id) => this.samples.get(`${scenario} ${id}`)?.size ?? 0));
  }

  failure(scenario: string, contender: string): Error | undefined {
    return this.failures.find((each) => each.scenario === scenario && each.contender === contender)
      ?.error;
  }
}
