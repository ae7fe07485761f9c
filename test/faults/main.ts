import { randomInt } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { startPostgres, type PostgresServer } from 'nestjs-bildad/testing';
import type { Violation } from './checker.js';
import type { History } from './history.js';
import { MUTANTS, type Mutant } from './mutants.js';
import { round, type Round } from './round.js';
import { figures, total, type Figures } from './summary.js';

/**
 * The lab: `npm run test:faults` is two rounds of a quarter of a minute, `npm run lab -- --minutes 30` as many
 * of a minute as fit. The last line is one JSON object; the exit code is 1 when something is violated.
 */
const { values } = parseArgs({
  options: {
    minutes: { type: 'string' },
    seconds: { type: 'string' },
    seed: { type: 'string', multiple: true },
    workers: { type: 'string' },
    concurrency: { type: 'string' },
    rate: { type: 'string' },
    burst: { type: 'string' },
    mutants: { type: 'boolean' },
    mutant: { type: 'string', multiple: true },
    control: { type: 'boolean' },
    keep: { type: 'boolean' },
  },
});

const LONG_ROUND_S = 60;
const SHORT_ROUND_S = 20;
/** Of every change the same; `lab` takes others. */
const FIXED_SEED = 20_261_124;
/** From dist/test/faults to the root. */
const FOLDER = fileURLToPath(new URL('../../../.lab/', import.meta.url));

const say = (text: string) => console.log(text);

async function main(): Promise<number> {
  const server = await startPostgres({
    // A crash of the server loses nothing that was committed; that of a machine is not ours to make.
    settings: { synchronous_commit: 'on', max_connections: '200' },
  });
  try {
    return values.mutants || values.mutant ? await plantAll(server) : await rounds(server);
  } finally {
    await server.stop();
  }
}

async function rounds(server: PostgresServer): Promise<number> {
  const all: Figures[] = [];
  const found: Violation[] = [];
  const seeds: number[] = [];
  const until = performance.now() + Number(values.minutes ?? 0) * 60_000;
  const given = (values.seed ?? []).map(Number);
  const random = randomInt(2 ** 31);
  const next = () =>
    given[seeds.length] ??
    (values.minutes === undefined ? FIXED_SEED : (given[0] ?? random) + seeds.length);
  const more = () =>
    values.minutes === undefined ? seeds.length < given.length : performance.now() < until;
  do {
    const seed = next();
    seeds.push(seed);
    const seconds = Number(
      values.seconds ?? (values.minutes === undefined ? SHORT_ROUND_S : LONG_ROUND_S),
    );
    const one = await round(server, options(seed, seconds));
    tell(seed, one);
    found.push(...one.violations);
    all.push(figures(one));
  } while (more());
  say(JSON.stringify({ ...total(all), seeds, violations: found.length }));
  return found.length > 0 ? 1 : 0;
}

function options(seed: number, seconds: number, mutant?: Mutant) {
  return {
    seed,
    seconds,
    workers: Number(values.workers ?? 3),
    concurrency: Number(values.concurrency ?? 6),
    perSecond: Number(values.rate ?? 15),
    burst: Number(values.burst ?? 60),
    folder: join(FOLDER, mutant ? mutant.name : `seed-${seed}`),
    ...(mutant && { mutant }),
  };
}

function tell(seed: number, { planned, history, violations, ...one }: Round) {
  const { folder } = options(seed, 0);
  say(`seed ${seed}: ${planned.length} faults, drained in ${one.drainMs} ms`);
  for (const { at, kind, target, lasts, ...rest } of planned)
    say(
      `  ${(at / 1_000).toFixed(1).padStart(5)} s  ${kind} ${target} for ${lasts} ms${details(rest)}`,
    );
  tellViolations(violations, 'everything held');
  keep(folder, history, violations);
}

/** The ledgers of what went wrong. */
function keep(folder: string, history: History, violations: Violation[]): void {
  const { lines: _lines, ...tables } = history;
  if (violations.length > 0 || values.keep)
    writeFileSync(join(folder, 'tables.json'), JSON.stringify(tables));
  if (violations.length > 0) {
    const file = join(folder, 'violations.json');
    writeFileSync(file, JSON.stringify(explained(history, violations), null, 1));
    say(`  see ${file}`);
  } else if (!values.keep) rmSync(folder, { recursive: true, force: true });
}

function details({ n: _n, ...rest }: Record<string, unknown>): string {
  const said = Object.entries(rest).map(([key, value]) => `${key} ${String(value)}`);
  return said.length > 0 ? `, ${said.join(', ')}` : '';
}

function tellViolations(violations: Violation[], otherwise: string): void {
  if (violations.length === 0) return say(`  ${otherwise}`);
  for (const { invariant, id, what } of violations.slice(0, 40))
    say(`  VIOLATED ${invariant}${id ? ` ${id}` : ''}: ${what}`);
  if (violations.length > 40) say(`  and ${violations.length - 40} more`);
}

/** Each with all that the ledgers and the tables say of its job. */
function explained({ lines, runs }: History, violations: Violation[]) {
  return violations.map((violation) => ({
    ...violation,
    ...(violation.id && {
      runs: runs.filter(({ identifier }) => identifier === violation.id),
      timeline: lines.filter((line) => 'id' in line && line.id === violation.id),
    }),
  }));
}

/**
 * Each planted bug must be found, and by the invariant that is there for it. With `--control` the same
 * circumstances without the bug, which must hold.
 */
async function plantAll(server: PostgresServer): Promise<number> {
  const chosen = MUTANTS.filter(({ name }) => !values.mutant || values.mutant.includes(name));
  const caught: Record<string, string[]> = {};
  let wrong = 0;
  for (const mutant of chosen) {
    const seed = Number(values.seed?.[0] ?? FIXED_SEED);
    const planted = values.control ? withoutBug(mutant) : mutant;
    const settings = options(seed, Number(values.seconds ?? SHORT_ROUND_S), planted);
    const { history, violations } = await round(server, settings);
    const by = [...new Set(violations.map(({ invariant }) => invariant))];
    caught[planted.name] = by;
    const good = values.control
      ? by.length === 0
      : violations.some(
          ({ invariant, what }) => invariant === mutant.caughtBy && mutant.says.test(what),
        );
    if (!good) wrong++;
    say(
      `${good ? 'as it should be' : 'WRONG'}: ${planted.name}, ${violations.length} violations of ${by.join(', ') || 'nothing'}`,
    );
    tellViolations(
      violations
        .toSorted((a, b) => Number(mutant.says.test(b.what)) - Number(mutant.says.test(a.what)))
        .slice(0, 3),
      'everything held',
    );
    keep(settings.folder, history, violations);
  }
  say(JSON.stringify({ mutants: chosen.length, caught, wrong }));
  return wrong > 0 ? 1 : 0;
}

const withoutBug = (mutant: Mutant): Mutant => ({
  ...mutant,
  name: `${mutant.name}-control`,
  sql: [],
  control: true,
});

process.exitCode = await main();
