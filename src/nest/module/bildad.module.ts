import { Module, type DynamicModule } from '@nestjs/common';
import { JobEvents } from '../../job/events.js';
import { refuseUnknown } from '../../options/reader.js';
import { OutermostHooksModule } from './outermost-hooks.js';
import {
  ASYNC_OPTIONS_TYPE,
  ConfigurableModuleClass,
  OPTIONS_TYPE,
} from './bildad.module-definition.js';
import { EngineStarter } from './engine-starter.js';
import { HandlerExplorer } from '../handlers/explorer.js';
import { JobEngineService } from '../services/job-engine.service.js';
import { JobsService } from '../services/jobs.service.js';
import { BildadLifecycle } from './lifecycle.js';
import { JobEventListeners } from '../listeners/listeners.js';
import { Pipelines } from '../pipeline/pipeline.js';
import { BILDAD_RUNTIME, type BildadRuntime } from './runtime.js';

const ASYNC_NAMES: readonly (keyof typeof ASYNC_OPTIONS_TYPE)[] = [
  'imports',
  'inject',
  'useFactory',
  'useClass',
  'useExisting',
  'provideInjectionTokensFrom',
  'isGlobal',
  'dataSource',
  'schema',
];

@Module({
  imports: [OutermostHooksModule],
  providers: [
    {
      provide: JobEvents,
      inject: [BILDAD_RUNTIME],
      useFactory: ({ events }: BildadRuntime) => events,
    },
    HandlerExplorer,
    Pipelines,
    EngineStarter,
    JobEventListeners,
    BildadLifecycle,
    JobEngineService,
    JobsService,
  ],
  exports: [JobEngineService, JobsService, JobEvents],
})
export class BildadModule extends ConfigurableModuleClass {
  /**
   * One engine on one PostgreSQL schema. Accepts the options and the extras `isGlobal`,
   * `dataSource` and `schema`.
   */
  static override forRoot(options: typeof OPTIONS_TYPE = {}): DynamicModule {
    return super.forRoot(options);
  }

  /** The same with options from a factory; the extras stay beside it. */
  static override forRootAsync(options: typeof ASYNC_OPTIONS_TYPE): DynamicModule {
    // An option beside the factory would have no effect.
    refuseUnknown(options, ASYNC_NAMES, '', 'BildadModule.forRootAsync');
    return super.forRootAsync(options);
  }
}
