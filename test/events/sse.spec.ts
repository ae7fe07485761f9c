import { Controller, Headers, Param, Sse, type INestApplication } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { TypeOrmModule } from '@nestjs/typeorm';
import { BildadModule, JobEngineService, JobsService, sse } from 'nestjs-bildad';
import { afterEach, describe, expect, it } from 'vitest';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { GatedJob } from '../support/handlers.js';
import { QUIET } from '../support/host.js';

// A browser watches a job through server-sent events, with Express and with Fastify.

@Controller('jobs')
class EventsController {
  constructor(private readonly jobs: JobsService) {}

  @Sse(':identifier/events')
  events(@Param('identifier') identifier: string, @Headers('last-event-id') after?: string) {
    return sse(this.jobs.watch(identifier, after ? { after } : {}));
  }
}

let database: TestDatabase;
let app: INestApplication;
afterEach(async () => {
  await app.close();
  await database.drop();
});

describe.each([
  ['Express', () => new ExpressAdapter()],
  ['Fastify', () => new FastifyAdapter()],
])('%s', (_name, adapter) => {
  it('streams updates, resumes after the last event id, and releases a disconnected client', async () => {
    database = await createDatabase();
    class HttpModule {}
    app = await NestFactory.create(
      {
        module: HttpModule,
        imports: [
          TypeOrmModule.forRoot({
            type: 'postgres',
            url: database.url,
            autoLoadEntities: true,
            retryAttempts: 0,
          }),
          BildadModule.forRoot(QUIET),
        ],
        controllers: [EventsController],
        providers: [GatedJob],
      },
      adapter() as ExpressAdapter,
      { logger: false, abortOnError: false },
    );
    await app.listen(0, '127.0.0.1');
    const url = await app.getUrl();
    const engine = app.get(JobEngineService);
    const { callers } = (engine as any).bildad.watcher.signals;
    const jobRunIdentifier = 'watched';
    await engine.enqueueAndRunJob(GatedJob, {}, { jobRunIdentifier });
    const { job, door } = await GatedJob.arrival();

    const disconnect = new AbortController();
    const stream = await fetch(`${url}/jobs/watched/events`, {
      signal: disconnect.signal,
    });
    expect(stream.headers.get('content-type')).toMatch(/^text\/event-stream/);
    const reader = stream.body!.getReader();
    job.stream('a chunk');
    let text = '';
    while (!text.includes('a chunk'))
      text += Buffer.from((await reader.read()).value ?? []).toString();
    expect(text).toMatch(/event: running\nid: 0\.1\.0\ndata: {"type":"running"/);
    expect(text).toMatch(/event: stream\nid: 0\.1\.1\n/);
    expect(callers.size).toBe(1);
    disconnect.abort();
    await reader.read().catch(() => undefined);
    await expect.poll(() => callers.size).toBe(0);

    door.open(null);
    await engine.waitForJob(jobRunIdentifier);
    const rest = await fetch(`${url}/jobs/watched/events`, {
      headers: { 'last-event-id': '0.1.1', connection: 'close' },
    });
    expect(await rest.text()).toMatch(
      /^\s*event: end\nid: 0\.2\.1\ndata: {.*"result":"SUCCEEDED".*}\n\n$/,
    );
  });
});
