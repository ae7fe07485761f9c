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
import { lastLine, ratiosOf } from './ratios.js';
import { HOW_TO_INSTALL, hasRedis, Redis } from './redis.js';
import { Results } from './results.js';
import { SCENARIOS } from './scenarios/index.js';
import type { Scenario } from './scenarios/scenario.js';
import { Server } from './server.js';
import { Stages } from './stage.js';
import { ratioTable, scenarioTable } from './tables.js';

const options = readOptions(
  process.argv.slice(2),
  SCENARIOS.map(({ name }) => name),
);
const scenarios = SCENARIOS.filter(({ name, onlyInFull }) =>
  options.only ? options.only.includes(name) : !(options.quick && onlyInFull),
);
await installPeers();
const redis = new Map<Contender['store'], Redis>();
const server = await Server.start();
const results = new Results();
const began = performance.now();
try {
  await startRedis();
  const stages = new Stages(server, redis);
  for (const scenario of scenarios) {
    await play(scenario, stages);
    await stages.strike();
    console.log(scenarioTable(scenario, options, idsOf(scenario), results));
  }
} finally {
  await stopAllAgents();
  for (const each of redis.values()) await each.stop();
  await server.stop();
}
const ratios = ratiosOf(results, options.rounds);
console.log(ratioTable(ratios));
console.log(
  `Node ${process.version}, ${options.rounds} rounds, ${Math.round((performance.now() - began) / 1000)} s`,
);
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
    .filter(
      (id) =>
        contender(id).store === 'postgres' || redis.has(contender(id).store),
    );
}

async function play(scenario: Scenario, stages: Stages): Promise<void> {
  const { name, columns, run } = scenario;
  const [{ key, title }] = columns(options) as [{ key: string; title: string }];
  for (let round = 0; round < options.rounds; round++)
    for (const id of idsOf(scenario)) {
      if (results.failure(name, id)) continue;
      const { label } = contender(id);
      const say = (text: string) =>
        console.error(
          `${name}, round ${round + 1} of ${options.rounds}, ${label}: ${text}`,
        );
      try {
        const sample = await run(stages, contender(id), options);
        results.add(name, id, round, sample);
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
}
