import { setTimeout as wait } from 'node:timers/promises';
import pg from 'pg';
import type { PostgresServer } from 'nestjs-bildad/testing';
import type { Member } from './fleet.js';
import type { Ledger } from './ledger.js';
import { type PlannedFault, type RowLock } from './schedule.js';
import { lockRows } from './row-locks.js';

export interface Arena {
  server: PostgresServer;
  /** Of the round's database, not through a proxy. */
  url: string;
  workers: Member[];
  client: Member;
  ledger: Ledger;
}

/** Carries out a schedule. Each fault is on the ledger from its begin to its heal. */
export class Nemesis {
  /** One fault at a time for each target: a deploy, for one, takes as long as the app takes to close. */
  private readonly underWay = new Map<string, Promise<void>>();

  constructor(private readonly arena: Arena) {}

  /** Resolves when the last fault is healed. */
  async run(planned: PlannedFault[]): Promise<void> {
    const began = performance.now();
    for (const fault of planned) {
      await wait(Math.max(0, began + fault.at - performance.now()));
      const before = this.underWay.get(fault.target) ?? Promise.resolve();
      this.underWay.set(
        fault.target,
        before.then(() => this.carryOut(fault)),
      );
    }
    await Promise.all(this.underWay.values());
  }

  private async carryOut(fault: PlannedFault): Promise<void> {
    const { n, kind, target } = fault;
    const { ledger } = this.arena;
    ledger.write({ what: 'fault', n, kind, target });
    try {
      if (kind === 'xmin') await this.holdSnapshot(fault);
      else if (kind.startsWith('lock') && kind !== 'lock') await this.lockRows(fault);
      else if (target === 'database') await this.database(fault);
      else await this.member(fault, this.find(target));
    } catch (error) {
      // A database that is away for another fault cannot be locked, for instance.
      ledger.write({
        what: 'engineError',
        doing: `the lab's ${kind}`,
        error: String(error),
      });
    }
    ledger.write({ what: 'heal', n, kind, target });
  }

  private find(name: string): Member {
    return [...this.arena.workers, this.arena.client].find((member) => member.name === name)!;
  }

  private async member(fault: PlannedFault, member: Member): Promise<void> {
    const { kind, lasts } = fault;
    const { proxy } = member;
    switch (kind) {
      case 'kill':
        await member.kill();
        await wait(lasts);
        return member.start();
      case 'freeze':
        member.freeze();
        await wait(lasts);
        return member.thaw();
      case 'deploy':
        if (fault.dark) await proxy.inflict(fault.dark);
        await member.terminate();
        if (fault.dark) await proxy.heal();
        await wait(lasts);
        return member.start(fault.missing ?? null);
      case 'cut':
        await Promise.race([proxy.cutAfterStatement(fault.statement!), wait(lasts)]);
        return proxy.heal();
      case 'backends':
      case 'restart':
      case 'crash':
      case 'lock':
      case 'lockRuns':
      case 'lockEntries':
      case 'lockTemplates':
      case 'lockKeys':
      case 'lockNodes':
      case 'xmin':
        throw new Error(`${kind} is not a fault of ${member.name}`);
      case 'distance':
        await proxy.inflict('delay', { ms: fault.delayMs! });
        await wait(lasts);
        return proxy.heal();
      default:
        await proxy.inflict(kind, { ms: fault.delayMs ?? 0 });
        await wait(lasts);
        return proxy.heal();
    }
  }

  private async database({ kind, lasts }: PlannedFault): Promise<void> {
    const { server } = this.arena;
    if (kind === 'restart') return server.restart('fast', lasts);
    if (kind === 'crash') return server.restart('crash', lasts);
    await this.session(async (client) => {
      if (kind === 'backends')
        await client.query(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE datname = current_database() AND pid <> pg_backend_pid()`,
        );
      else await client.query('BEGIN; LOCK TABLE bildad.job_queue_entries IN SHARE MODE');
      await wait(kind === 'backends' ? 0 : lasts);
    });
  }

  /** A long transaction: vacuum removes nothing that was deleted since it began. It also has an id, as a writer has. */
  private async holdSnapshot({ lasts }: PlannedFault): Promise<void> {
    await this.session(async (client) => {
      await client.query(
        'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id(), count(*) FROM bildad.job_configs',
      );
      await wait(lasts);
    });
  }

  /** The lock ends with the session, whose transaction is rolled back. */
  private async lockRows({ n, kind, target, lasts }: PlannedFault): Promise<void> {
    await this.session(async (client) => {
      const node = kind === 'lockNodes' ? this.find(target) : undefined;
      const locked = await lockRows(client, kind as RowLock, node?.process?.pid);
      this.arena.ledger.write({ what: 'locked', n, ...locked });
      await wait(lasts);
    });
  }

  private async session(work: (client: pg.Client) => Promise<void>): Promise<void> {
    const client = new pg.Client(this.arena.url);
    client.on('error', () => undefined);
    await client.connect();
    try {
      await work(client);
    } finally {
      await client.end();
    }
  }
}
