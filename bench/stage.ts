/** Where a run takes place: a database of its own for each, or an emptied Redis. */
import type { Target } from './adapter.js';
import { Agent, stopAllAgents } from './agents.js';
import type { Contender } from './contenders.js';
import type { Redis } from './redis.js';
import type { Server } from './server.js';

export interface Stage {
  /** Of the database, or of Redis. */
  url: string;
  meter(): Promise<Meter>;
  sql(statement: string): Promise<void>;
}

export interface Meter {
  serverCpuMs: number;
  walBytes: number;
}

export interface Setting {
  /** Jobs that wait. */
  jobs?: number;
  /** Puts them there instead of the contender's own bulk call. */
  sql?: string;
  copy?: 'in bulk';
  /** How many processes of the contender. Default 1. */
  agents?: number;
}

const FILL_DEADLINE_MS = 600_000;

export class Stages {
  /** Databases that were prepared once, by what is in them. */
  private readonly templates = new Map<string, string>();

  constructor(
    private readonly server: Server,
    private readonly redis: Map<Contender['store'], Redis>,
  ) {}

  /** Sets a stage, plays, and clears it away together with every process of it. */
  async on<T>(
    contender: Contender,
    setting: Setting,
    play: (stage: Stage, agents: [Agent, ...Agent[]]) => Promise<T>,
  ): Promise<T> {
    const redis = this.redis.get(contender.store);
    const count = setting.agents ?? 1;
    const { config } = contender;
    let database: string | undefined;
    const place = async (): Promise<string> => {
      if (redis) {
        await redis.clear();
        if (setting.jobs) await fill(contender, { url: redis.url, config }, setting.jobs);
        return redis.url;
      }
      const template = await this.template(contender, setting);
      const { name, url } = await this.server.create(template, setting.copy);
      database = name;
      return url;
    };
    try {
      const [url, ...agents] = await Promise.all([
        place(),
        ...Array.from({ length: count }, () => Agent.start(contender)),
      ]);
      for (const agent of agents) await agent.call('aim', { url, config });
      return await play(
        {
          url,
          meter: async () => ({
            serverCpuMs: await (redis ?? this.server).cpuMs(),
            walBytes: redis ? Number.NaN : await this.server.walBytes(),
          }),
          sql: (statement) => this.server.run(url, statement),
        },
        agents as [Agent, ...Agent[]],
      );
    } finally {
      await stopAllAgents();
      if (database) await this.server.drop(database);
    }
  }

  /** The same for each round: prepared, filled and vacuumed once. */
  private async template(contender: Contender, { jobs = 0, sql, copy }: Setting): Promise<string> {
    const key = `${contender.schema}, ${sql ? 'by SQL, ' : ''}${jobs} jobs`;
    const known = this.templates.get(key);
    if (known) return known;
    const base = jobs > 0 ? await this.template(contender, {}) : undefined;
    const { name, url } = await this.server.create(base, copy);
    const target = { url, config: contender.config };
    if (jobs === 0) await ask(contender, target, (agent) => agent.call('prepare'));
    else if (sql) await this.server.run(url, sql);
    else await fill(contender, target, jobs);
    await this.server.run(url, 'VACUUM (ANALYZE)');
    this.templates.set(key, name);
    return name;
  }

  /** Forgets the prepared databases that are filled: one may be large. */
  async strike(): Promise<void> {
    for (const [key, name] of this.templates)
      if (!key.endsWith(' 0 jobs')) {
        this.templates.delete(key);
        await this.server.drop(name);
      }
  }
}

const fill = (contender: Contender, target: Target, jobs: number) =>
  ask(contender, target, async (agent) => {
    await agent.call('produce');
    await agent.call('enqueueBulk', { jobs }, FILL_DEADLINE_MS);
  });

async function ask<T>(
  contender: Contender,
  target: Target,
  what: (agent: Agent) => Promise<T>,
): Promise<T> {
  const agent = await Agent.start(contender);
  try {
    await agent.call('aim', target);
    return await what(agent);
  } finally {
    await agent.stop();
  }
}
