import type { Combination } from './combinations.js';

/** The user's app: enqueues a job over HTTP and responds with its final run. */
export function filesOf({ module, http }: Combination): Record<string, string> {
  const esm = module === 'ESM';
  return {
    'package.json': JSON.stringify({ type: esm ? 'module' : 'commonjs' }),
    'tsconfig.json': JSON.stringify({
      compilerOptions: {
        ...(esm
          ? { module: 'nodenext' }
          : // The tsconfig that Nest's CLI generated for years.
            {
              module: 'commonjs',
              moduleResolution: 'node10',
              esModuleInterop: true,
              ignoreDeprecations: '6.0',
            }),
        target: 'ES2023',
        lib: ['ES2023'],
        strict: true,
        exactOptionalPropertyTypes: true,
        experimentalDecorators: true,
        emitDecoratorMetadata: true,
        types: ['node'],
        rootDir: '.',
        outDir: 'dist',
      },
      files: ['main.ts', 'testing.ts'],
    }),
    // The same app under the module resolution of bundlers.
    'tsconfig.bundler.json': JSON.stringify({
      extends: './tsconfig.json',
      compilerOptions: {
        module: 'esnext',
        moduleResolution: 'bundler',
        noEmit: true,
      },
      files: ['app.module.ts', 'testing.ts'],
    }),
    'app.module.ts': appModule(esm),
    'main.ts': main(esm, http),
    'testing.ts': `
import { startPostgres } from 'nestjs-bildad/testing';
export const url: Promise<string> = startPostgres().then((server) => server.url);
`,
  };
}

const appModule = (esm: boolean) => `
import { Body, Controller, Get, Injectable, Module, Param, Post, type OnApplicationShutdown } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { IsString } from 'class-validator';
import { BildadJob, BildadModule, JobEngineService, JobRun, type JobExecution, type JobHandler } from 'nestjs-bildad';
import { InjectRepository } from '@nestjs/typeorm';
import { Repository } from 'typeorm';
${esm ? '' : "import { pathToFileURL } from 'node:url';"}

class GreetContext {
  @IsString() name!: string;
}

@Injectable()
class Greeter {
  greet = (name: string) => \`Hello \${name}\`;
}

abstract class Greet implements JobHandler<GreetContext, string> {
  constructor(readonly greeter: Greeter, @InjectRepository(JobRun) readonly runs: Repository<JobRun>) {}

  async runJob({ name }: GreetContext, job: JobExecution): Promise<string> {
    const run = await this.runs.findOneByOrFail({ id: job.jobRunId });
    return this.greeter.greet(name) + ' ' + run.status;
  }
}

@BildadJob({ code: 'INLINE', context: GreetContext })
class InlineJob extends Greet {}

@BildadJob({ code: 'THREAD', context: GreetContext, isolation: 'thread' })
class ThreadJob extends Greet {}

@BildadJob({ code: 'PROCESS', context: GreetContext, isolation: 'process' })
class ProcessJob extends Greet {}

@Controller('jobs')
class JobsController implements OnApplicationShutdown {
  constructor(private readonly engine: JobEngineService) {}

  @Post(':code')
  async enqueue(@Param('code') code: string, @Body() context: object) {
    const { jobRunIdentifier } = await this.engine.enqueueJob(code, context);
    return { jobRunIdentifier };
  }

  @Get(':identifier')
  async end(@Param('identifier') identifier: string) {
    const { result, output } = await this.engine.waitForJob(identifier);
    return { result, output };
  }

  onApplicationShutdown(signal?: string) {
    // Isolation hosts are closed without a signal.
    if (signal) console.log('closed by ' + signal);
  }
}

@Module({
  imports: [
    TypeOrmModule.forRoot({ type: 'postgres', url: process.env['DATABASE_URL']!, autoLoadEntities: true }),
    BildadModule.forRoot({
      isolation: { module: ${esm ? 'import.meta.url' : 'pathToFileURL(__filename).href'}, export: 'AppModule', threads: 1, processes: 1 },
    }),
  ],
  controllers: [JobsController],
  providers: [Greeter, InlineJob, ThreadJob, ProcessJob],
})
export class AppModule {}
`;

const main = (esm: boolean, http: Combination['http']) => `
import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
${http === 'Fastify' ? "import { FastifyAdapter } from '@nestjs/platform-fastify';" : ''}
import { AppModule } from './app.module${esm ? '.js' : ''}';

async function main() {
  const app = await NestFactory.create(AppModule, ${http === 'Fastify' ? 'new FastifyAdapter(), ' : ''}{ logger: ['error', 'warn'] });
  app.enableShutdownHooks();
  await app.listen(0, '127.0.0.1');
  console.log(await app.getUrl());
}
void main();
`;
