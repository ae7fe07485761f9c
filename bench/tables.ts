import { stripVTControlCharacters } from 'node:util';
import Table from 'cli-table3';
import { contender } from './contenders.js';
import type { Options } from './options.js';
import type { Ratio } from './ratios.js';
import type { Results } from './results.js';
import type { Scenario } from './scenarios/scenario.js';
import type { Spread } from './statistics.js';

const STYLE = { head: [], border: [], compact: true };
const LONGEST_ERROR = 300;

function round(value: number, asked = 0): string {
  const digits = value < 10 ? Math.max(asked, 1) : asked;
  return value.toLocaleString('en', {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

function cell(spread: Spread | undefined, digits?: number): string {
  if (!spread) return '–';
  const [min, median, max] = [spread.min, spread.median, spread.max].map((value) =>
    round(value, digits),
  );
  return min === max ? median! : `${median} [${min} - ${max}]`;
}

export function scenarioTable(
  scenario: Scenario,
  options: Options,
  contenders: string[],
  results: Results,
): string {
  const columns = scenario.columns(options);
  const table = new Table({
    head: ['', ...columns.map(({ title }) => title)],
    colAligns: ['left', ...columns.map(() => 'right' as const)],
    style: STYLE,
  });
  const failed: string[] = [];
  for (const id of contenders) {
    const { label } = contender(id);
    const failure = results.failure(scenario.name, id);
    if (failure) failed.push(`ERROR in ${label}: ${brief(failure)}`);
    table.push([
      failure ? `${label} (ERROR)` : label,
      ...columns.map(({ key, digits }) => cell(results.spread(scenario.name, id, key), digits)),
    ]);
  }
  return [
    `\n${scenario.title}: median [min - max] of ${results.roundsOf(scenario.name, contenders)} rounds (npm run bench -- --only ${scenario.name})`,
    table.toString(),
    scenario.notes,
    ...failed,
  ].join('\n');
}

export function ratioTable(ratios: Ratio[]): string {
  const table = new Table({
    head: ['ratio', 'median', 'min', 'max', ''],
    colAligns: ['left', 'right', 'right', 'right', 'left'],
    style: STYLE,
  });
  for (const { key, meaning, spread } of ratios) {
    const values = spread && [spread.median, spread.min, spread.max];
    table.push([
      key,
      ...(values ?? [undefined, undefined, undefined]).map((value) =>
        value === undefined ? '–' : round(value, 2),
      ),
      meaning,
    ]);
  }
  return `\nRatios: each is made within a round, higher is better but where it says so\n${table.toString()}`;
}

function brief(error: Error): string {
  const text = stripVTControlCharacters(error.message);
  return text.length > LONGEST_ERROR ? `${text.slice(0, LONGEST_ERROR)} ...` : text;
}
