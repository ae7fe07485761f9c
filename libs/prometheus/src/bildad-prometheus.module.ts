import {
  Controller,
  Get,
  Header,
  Inject,
  Injectable,
  Module,
  VERSION_NEUTRAL,
  type DynamicModule,
  type OnApplicationShutdown,
  type OnModuleInit,
  type Type,
} from '@nestjs/common';
import { BildadConfigError, JobEngineService, refuseUnknown } from 'nestjs-bildad';
import { register, Registry } from 'prom-client';
import { collectBildad } from './registry-sink.js';

const WHERE = 'BildadPrometheusModule.forRoot';

export interface BildadPrometheusOptions {
  /**
   * Path of the endpoint, after the app's global prefix. `false`: no endpoint; the app serves the
   * registry itself. Default `'/metrics'`.
   */
  path?: string | false;
  /** Default: prom-client's global registry. */
  registry?: Registry;
}

const REGISTRY = Symbol('nestjs-bildad/prometheus:registry');

@Injectable()
class BildadCollector implements OnModuleInit, OnApplicationShutdown {
  private stop = () => {};

  constructor(
    @Inject(JobEngineService) private readonly engine: JobEngineService,
    @Inject(REGISTRY) private readonly registry: Registry,
  ) {}

  onModuleInit(): void {
    this.stop = collectBildad(this.engine, this.registry);
  }

  /** The last hook, so that runs that end at shutdown are counted. */
  onApplicationShutdown(): void {
    this.stop();
  }
}

/**
 * Serves the engine's metrics for Prometheus through the app's own HTTP server (Express or
 * Fastify). It needs the package `prom-client` and a global engine; use `collectBildad` for others.
 */
@Module({})
export class BildadPrometheusModule {
  /** @throws BildadConfigError */
  static forRoot(options: BildadPrometheusOptions = {}): DynamicModule {
    refuseUnknown(options, ['path', 'registry'], '', WHERE);
    const { path = '/metrics', registry = register } = options;
    if (path !== false && typeof path !== 'string')
      throw new BildadConfigError('path', "must be a path such as '/metrics', or false", {
        got: path,
        where: WHERE,
      });
    if (!(registry instanceof Registry))
      throw new BildadConfigError(
        'registry',
        `must be a Registry of this app's prom-client, not ${typeof registry}`,
        { where: WHERE },
      );
    return {
      module: BildadPrometheusModule,
      providers: [{ provide: REGISTRY, useValue: registry }, BildadCollector],
      controllers: path === false ? [] : [controllerAt(path, registry)],
    };
  }
}

function controllerAt(path: string, registry: Registry): Type {
  @Controller({ path, version: VERSION_NEUTRAL })
  class BildadMetricsController {
    @Get()
    @Header('Content-Type', registry.contentType)
    @Header('Cache-Control', 'no-store')
    metrics(): Promise<string> {
      return registry.metrics();
    }
  }
  return BildadMetricsController;
}
