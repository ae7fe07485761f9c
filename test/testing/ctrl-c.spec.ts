import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import pg from 'pg';
import { expect, it } from 'vitest';

// A terminal sends Ctrl-C to every process of the foreground group. An app that shuts down
// gracefully needs its server until the end.

const APP = `
  import { startPostgres } from 'nestjs-bildad/testing';
  const server = await startPostgres();
  process.on('SIGINT', () => console.log('interrupted'));
  process.stdin.resume().on('end', () => server.stop());
  console.log(server.url);
`;

it('the server survives a SIGINT to the app that started it', async () => {
  const app = spawn(process.execPath, ['--input-type=module', '-e', APP], {
    detached: true,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(app, 'exit');
  try {
    const lines = createInterface(app.stdout)[Symbol.asyncIterator]();
    const url = (await lines.next()).value as string;
    const client = new pg.Client({ connectionString: url });
    const lost: Error[] = [];
    client.on('error', (error) => lost.push(error));
    await client.connect();
    process.kill(-app.pid!, 'SIGINT');
    expect((await lines.next()).value).toBe('interrupted');
    // Enough time for a server that received the signal to abort the query.
    expect((await client.query('SELECT pg_sleep(0.2)')).rowCount).toBe(1);
    await client.end();
    expect(lost).toEqual([]);
  } finally {
    app.stdin.end();
    await ended;
  }
});
