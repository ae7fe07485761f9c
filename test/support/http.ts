import 'reflect-metadata';
import type {
  DynamicModule,
  INestApplication,
  ModuleMetadata,
  Provider,
  Type,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { FastifyAdapter } from '@nestjs/platform-fastify';
import { TypeOrmModule } from '@nestjs/typeorm';
import { BildadModule } from 'nestjs-bildad';
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { QUIET, type HostOptions } from './host.js';

export type Platform = 'express' | 'fastify';

export interface HttpOptions extends Pick<HostOptions, 'url'> {
  /** Options of the Bildad module, or other modules in its place. */
  bildad?: HostOptions['bildad'] | DynamicModule[];
  platform?: Platform;
  providers?: Provider[];
  controllers?: Type[];
  imports?: ModuleMetadata['imports'];
  prefix?: string;
}

export interface Answer {
  status: number;
  type: string;
  body: string;
}

/** An app with an HTTP server on a free port. */
export async function bootHttp({
  url,
  platform = 'express',
  providers = [],
  controllers = [],
  imports = [],
  bildad = {},
  prefix,
}: HttpOptions): Promise<{
  app: INestApplication;
  ask: (path: string) => Promise<Answer>;
}> {
  class HttpModule {}
  const module = {
    module: HttpModule,
    providers,
    controllers,
    imports: [
      TypeOrmModule.forRoot({
        type: 'postgres',
        url,
        autoLoadEntities: true,
        retryAttempts: 0,
      }),
      ...(Array.isArray(bildad) ? bildad : [BildadModule.forRoot({ ...QUIET, ...bildad })]),
      ...imports,
    ],
  };
  const options = { logger: false, abortOnError: false } as const;
  const app = await (platform === 'fastify'
    ? NestFactory.create(module, new FastifyAdapter(), options)
    : NestFactory.create(module, options));
  if (prefix) app.setGlobalPrefix(prefix);
  await app.listen(0, '127.0.0.1');
  const server = (await app.getUrl()).replace('[::1]', '127.0.0.1');
  return {
    app,
    ask: async (path) => {
      const [response] = (await once(get(`${server}${path}`, { agent: false }), 'response')) as [
        IncomingMessage,
      ];
      let body = '';
      for await (const chunk of response) body += String(chunk);
      return {
        status: response.statusCode!,
        type: response.headers['content-type'] ?? '',
        body,
      };
    },
  };
}
