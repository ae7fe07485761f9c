import { once } from 'node:events';
import { createServer } from 'node:net';
import type { INestApplication } from '@nestjs/common';

const HOST = '127.0.0.1';

/** Listens on the port, or on a free one if that is taken. @returns the address */
export async function serve(app: INestApplication, port: number): Promise<string> {
  const taken = !(await isFree(port));
  await app.listen(taken ? 0 : port, HOST);
  const url = (await app.getUrl()).replace(/\/$/, '');
  if (taken) console.log(`Port ${port} is taken.`);
  return url;
}

async function isFree(port: number): Promise<boolean> {
  const probe = createServer().listen(port, HOST);
  try {
    await once(probe, 'listening');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return false;
    throw error;
  }
  probe.close();
  await once(probe, 'close');
  return true;
}

export function invitation(url: string): string {
  const post = (path: string, body?: object) =>
    `  curl -X POST ${url}${path}${body ? ` -H 'content-type: application/json' -d '${JSON.stringify(body)}'` : ''}`;
  return [
    `Listening on ${url}, until Ctrl-C. For example:`,
    `  curl "${url}/jobs?limit=5"`,
    post('/jobs', {
      code: 'SAMPLE_FLAKY',
      context: { failures: 1 },
      options: { jobRunIdentifier: 'mine' },
    }),
    `  curl ${url}/jobs/mine`,
    post('/jobs', { code: 'SAMPLE_FLAKY', context: { failures: 'many' } }),
    post('/jobs/engine/run'),
  ].join('\n');
}
