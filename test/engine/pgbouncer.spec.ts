import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, inject, it, vi } from 'vitest';
import { bootApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';

// PgBouncer in transaction mode with two server connections: the engine uses no session state and reports that
// LISTEN does not work. Skipped without pgbouncer (apt-get install pgbouncer).

const path = ['/usr/sbin/pgbouncer', '/usr/bin/pgbouncer'].find((file) => {
  try {
    execFileSync(file, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
});

describe.skipIf(!path)('behind PgBouncer', () => {
  let folder: string;
  let bouncer: ChildProcess;
  let database: TestDatabase;
  let url: string;

  beforeAll(async () => {
    database = await createDatabase();
    const server = new URL(inject('databaseUrl'));
    const port = await freePort();
    folder = mkdtempSync(join(tmpdir(), 'pgbouncer-'));
    const file = join(folder, 'pgbouncer.ini');
    const host = server.searchParams.get('host') ?? server.hostname;
    writeFileSync(
      file,
      `[databases]
* = host=${host} port=${server.port || 5432} user=${server.username} password='${decodeURIComponent(server.password)}'
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
ignore_startup_parameters = extra_float_digits
`,
    );
    chmodSync(folder, 0o755);
    const asRoot = process.getuid?.() === 0;
    bouncer = spawn(path!, [...(asRoot ? ['-u', 'nobody'] : []), file], {
      stdio: 'ignore',
    });
    await vi.waitUntil(() => listens(port), { timeout: 10_000 });
    const through = new URL(database.url);
    through.hostname = '127.0.0.1';
    through.port = String(port);
    through.search = '';
    url = through.href;
  });
  afterAll(async () => {
    bouncer.kill('SIGKILL');
    await once(bouncer, 'exit');
    rmSync(folder, { recursive: true });
    await database.drop();
  });

  it('jobs run, and a node reports that it receives no notifications', async () => {
    const options = { tickInterval: 200 };
    const pooled = { ...database, url };
    const worker = await bootApp({
      providers: [SimpleJob],
      options,
      database: pooled,
    });
    const notListening = worker.next('engine.listening');
    const producer = await bootApp({
      providers: [SimpleJob],
      options: { role: 'producer' },
      database: pooled,
    });
    try {
      const entries = await producer.engine.enqueueJobs(
        SimpleJob,
        Array.from({ length: 500 }, (_none, say) => ({ say })),
      );
      for (const { jobRunIdentifier } of entries)
        expect(await producer.engine.waitForJob(jobRunIdentifier)).toMatchObject({
          result: 'SUCCEEDED',
          retry: 0,
        });
      expect(await notListening).toEqual({ hears: false });
    } finally {
      await producer.close();
      await worker.close();
    }
  }, 40_000);
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

const listens = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => resolve(false));
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
  });
