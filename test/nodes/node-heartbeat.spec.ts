import { afterAll, beforeAll, expect, it } from 'vitest';
import { heartbeatConnector } from '../../src/database/connection/dedicated-connection.js';
import { tablesOf } from '../../src/database/tables.js';
import { HeartbeatMemory } from '../../src/membership/heartbeat-memory.js';
import { NodeHeartbeat, type HeartbeatReport } from '../../src/membership/node-heartbeat.js';
import { bootApp, type TestApp } from '../support/app.js';

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp();
});
afterAll(() => bildad.close());

it('a node that is fenced at any moment of a heartbeat ends at once', async () => {
  for (let microtasks = 0; microtasks < 12; microtasks++) {
    const memory = new HeartbeatMemory();
    // The next heartbeat would come after 12 seconds.
    memory.leaseMs = 60_000;
    const id = `node ${microtasks}`;
    const reports: string[] = [];
    const report = ({ kind }: HeartbeatReport) => {
      reports.push(kind);
      if (kind !== 'joined') return;
      void (async () => {
        for (let n = 0; n < microtasks; n++) await Promise.resolve();
        heartbeat.fence(id);
      })();
    };
    const heartbeat = new NodeHeartbeat(
      tablesOf('bildad'),
      memory,
      heartbeatConnector(bildad.dataSource)!,
      report,
      () => null,
    );
    heartbeat.join({
      id,
      engineName: 'default',
      host: 'here',
      pid: 1,
      version: '0',
      templateCodes: [],
      concurrency: 1,
    });
    await expect.poll(() => reports, { timeout: 5_000 }).toEqual(['joined', 'ended']);
    await heartbeat.leave();
  }
});
