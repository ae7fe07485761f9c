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
   * Where Prometheus reads, behind the app's global prefix if there is one; `false`: nowhere, the registry is served by
   * the app itself. Default `'/metrics'`.
   */
  path?: string | false;
  /** Default: prom-client's own, which is where other libraries put theirs. */
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

  /** Not before: what ends at shutdown is counted, too. */
  onApplicationShutdown(): void {
    this.stop();
  }
}

/**
 * The engine's metrics as Prometheus reads them, over the app's own HTTP server, be that Express or Fastify. It needs the
 * package `prom-client`, and an engine that is global; of others `collectBildad` takes each.
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
