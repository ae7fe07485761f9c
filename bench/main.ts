/**
 * Bildad beside its peers and beside raw SQL, on one embedded PostgreSQL that keeps what it says (fsync and
 * synchronous_commit on), every contender in processes of its own:
 *
 *   npm run bench                        all scenarios, three rounds, 100,000 jobs
 *   npm run bench -- --quick             less of everything, without Redis, in under five minutes
 *   npm run bench -- --only drain,latency --rounds 5 --jobs 50000
 *   npm run bench -- --redis             fails if there is no redis-server; --no-redis leaves it out
 *
 * Within a round each contender runs a scenario once, on a database of its own: a copy of one that was prepared,
 * filled and vacuumed before, made after a checkpoint. Figures move by a factor of two between runs of a shared
 * machine, so read the ratios, which are made within a round. The last line is one JSON object: their medians.
 */
import { stopAllAgents } from './agents.js';
import { contender, type Contender } from './contenders.js';
import { installPeers } from './install.js';
import { readOptions } from './options.js';
import { furtherRatiosOf, lastLine, ratiosOf } from './ratios.js';
import { HOW_TO_INSTALL, hasRedis, Redis } from './redis.js';
import { Results } from './results.js';
import { SCENARIOS } from './scenarios/index.js';
import type { Column, Scenario } from './scenarios/scenario.js';
import { Server } from './server.js';
import { Stages } from './stage.js';
import { ratioTable, scenarioTable } from './tables.js';

const options = readOptions(
  process.argv.slice(2),
  SCENARIOS.map(({ name }) => name),
);
const scenarios = SCENARIOS.filter(({ name, quickSeconds }) =>
  options.only ? options.only.includes(name) : !options.quick || quickSeconds,
);
await installPeers();
const redis = new Map<Contender['store'], Redis>();
const server = await Server.start();
const results = new Results();
const began = performance.now();
try {
  await startRedis();
  const stages = new Stages(server, redis);
  let until = 0;
  for (const scenario of scenarios) {
    until += scenario.quickSeconds * 1000;
    await play(scenario, stages, options.hurries ? until : Infinity);
    await stages.strike();
    console.log(scenarioTable(scenario, options, idsOf(scenario), results));
  }
} finally {
  await stopAllAgents();
  for (const each of redis.values()) await each.stop();
  await server.stop();
}
const ratios = ratiosOf(results);
console.log(ratioTable([...ratios, ...furtherRatiosOf(results)]));
console.log(`Node ${process.version}, ${Math.round((performance.now() - began) / 1000)} s`);
if (results.failures.length > 0) process.exitCode = 1;
console.log(lastLine(ratios));

async function startRedis(): Promise<void> {
  if (options.redis === false) return;
  if (!(await hasRedis())) {
    if (options.redis) throw new Error(HOW_TO_INSTALL);
    console.error(`Without Redis: ${HOW_TO_INSTALL}`);
    return;
  }
  redis.set('redis', await Redis.start({ aof: false }));
  redis.set('redis with AOF', await Redis.start({ aof: true }));
}

function idsOf(scenario: Scenario): string[] {
  return scenario
    .contenders(options)
    .filter((id) => contender(id).store === 'postgres' || redis.has(contender(id).store));
}

function roundsOf({ mostRounds = Infinity }: Scenario): number {
  return Math.min(options.rounds, mostRounds);
}

/** @param until when there is no time for another round, in milliseconds since we began */
async function play(scenario: Scenario, stages: Stages, until: number): Promise<void> {
  const rounds = roundsOf(scenario);
  let lastTook = 0;
  for (let round = 0; round < rounds; round++) {
    const start = performance.now();
    if (round > 0 && start - began + lastTook > until) return;
    for (const id of idsOf(scenario)) await once(scenario, stages, round, id);
    lastTook = performance.now() - start;
  }
}

async function once(scenario: Scenario, stages: Stages, round: number, id: string): Promise<void> {
  const { name } = scenario;
  // Once is enough to know that it does not work.
  if (results.failure(name, id)) return;
  const { label } = contender(id);
  const start = performance.now();
  const say = (text: string) =>
    console.error(
      `${name}, round ${round + 1} of ${roundsOf(scenario)}, ${label}: ${text} (${Math.round(performance.now() - start)} ms)`,
    );
  try {
    const sample = await scenario.run(stages, contender(id), options);
    results.add(name, id, round, sample);
    const [{ key, title }] = scenario.columns(options) as [Column];
    say(`${sample[key]!.toLocaleString('en')} ${title}`);
  } catch (error) {
    results.failures.push({
      scenario: name,
      contender: id,
      error: error as Error,
    });
    say(`ERROR ${(error as Error).message}`);
  }
}
