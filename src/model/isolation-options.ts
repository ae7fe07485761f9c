import { toMilliseconds, type Duration } from './duration.js';
import { BildadConfigError } from './errors.js';
import { refuseUnknown, text, wholeNumber } from './option-values.js';

/** The threads and processes that isolated handlers run in. */
export interface IsolationOptions {
  /**
   * URL of the module they boot: `new URL('./app.module.js', import.meta.url)`, in CommonJS
   * `pathToFileURL(require.resolve('./app.module'))`. It is mostly the app's own.
   */
  module: URL | string;
  /** What that module exports the Nest module as: a class, or a dynamic module. Default `'AppModule'`. */
  export?: string;
  /** Threads at once; jobs beyond wait for one, and hold their slot meanwhile. Default: `concurrency`. */
  threads?: number;
  /** Processes at once. Default: `concurrency`. */
  processes?: number;
  /** MiB that one may use: of a thread the JavaScript heap, of a process all its memory. From 64. Default: what Node allows. */
  memoryLimit?: number;
  /** One that has run nothing for so long is closed, but for the last of its kind. Default `'5m'`. */
  idleTimeout?: Duration;
  /** Connections that each may hold in each of its DataSources. Default 2. */
  connections?: number;
}

export interface IsolationSettings {
  moduleUrl: string;
  exportName: string;
  threads: number;
  processes: number;
  memoryLimit: number | undefined;
  idleMs: number;
  connections: number;
}

/** @throws BildadConfigError naming the first wrong one */
export function readIsolation(
  options: IsolationOptions,
  concurrency: number,
): IsolationSettings {
  refuseUnknown(options, 'isolation.', [
    'module',
    'export',
    'threads',
    'processes',
    'memoryLimit',
    'idleTimeout',
    'connections',
  ]);
  const {
    module,
    export: exportName = 'AppModule',
    threads = concurrency,
    processes = concurrency,
    memoryLimit,
    idleTimeout = '5m',
    connections = 2,
  } = options;
  if (!URL.canParse(String(module)))
    throw new BildadConfigError(
      'isolation.module',
      "the URL of a module, like new URL('./app.module.js', import.meta.url)",
      module,
    );
  return {
    moduleUrl: String(module),
    exportName: text(exportName, 'isolation.export'),
    threads: wholeNumber(threads, 'isolation.threads', 1, 1_000),
    processes: wholeNumber(processes, 'isolation.processes', 1, 1_000),
    memoryLimit:
      memoryLimit === undefined
        ? undefined
        : wholeNumber(memoryLimit, 'isolation.memoryLimit', 64, 1_048_576),
    idleMs: toMilliseconds(idleTimeout, 'isolation.idleTimeout', { min: 10 }),
    connections: wholeNumber(connections, 'isolation.connections', 1, 100),
  };
}
