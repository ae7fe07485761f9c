import { toMilliseconds, type Duration } from '../job/duration.js';
import { BildadConfigError } from '../job/errors.js';
import type { HostKind } from '../job/isolation-mode.js';
import { refuseUnknown, text, wholeNumber } from './option-values.js';

const MOST_MIB = 1_048_576;
const MOST_HOSTS = 1_000;
/** Node with Nest and TypeORM takes as much. */
export const LEAST_PROCESS_MIB = 128;

/** The threads and processes that isolated handlers run in. */
export interface IsolationOptions {
  /**
   * URL of the module they boot: `new URL('./app.module.js', import.meta.url)`, in CommonJS
   * `pathToFileURL(require.resolve('./app.module'))`. It is mostly the app's own.
   */
  module: URL | string;
  /** What that module exports the Nest module as: a class, or a dynamic module. Default `'AppModule'`. */
  export?: string;
  /** Threads at once; jobs beyond wait for one, and hold their slot meanwhile. Default: `concurrency`, 1,000 at most. */
  threads?: number;
  /** Processes at once. Default: `concurrency`, 1,000 at most. */
  processes?: number;
  /**
   * MiB that one may use: of a thread the JavaScript heap, from 64; of a process all its memory, from 128, of which Node and
   * the app's module take their part. A number is for both. Default: what Node allows.
   */
  memoryLimit?: number | Partial<Record<HostKind, number>>;
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
  memoryLimit: Partial<Record<HostKind, number>>;
  idleMs: number;
  connections: number;
}

/** @throws BildadConfigError naming the first wrong one */
export function readIsolation(options: IsolationOptions, concurrency: number): IsolationSettings {
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
    threads = Math.min(concurrency, MOST_HOSTS),
    processes = Math.min(concurrency, MOST_HOSTS),
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
    threads: wholeNumber(threads, 'isolation.threads', 1, MOST_HOSTS),
    processes: wholeNumber(processes, 'isolation.processes', 1, MOST_HOSTS),
    memoryLimit: readMemoryLimit(memoryLimit),
    idleMs: toMilliseconds(idleTimeout, 'isolation.idleTimeout', { min: 10 }),
    connections: wholeNumber(connections, 'isolation.connections', 1, 100),
  };
}

function readMemoryLimit(limit: IsolationOptions['memoryLimit']): IsolationSettings['memoryLimit'] {
  if (limit === undefined) return {};
  if (typeof limit !== 'object') {
    const both = wholeNumber(limit, 'isolation.memoryLimit', 64, MOST_MIB);
    return { thread: both, process: both };
  }
  refuseUnknown(limit, 'isolation.memoryLimit.', ['thread', 'process']);
  const { thread, process } = limit;
  return {
    ...(thread !== undefined && {
      thread: wholeNumber(thread, 'isolation.memoryLimit.thread', 64, MOST_MIB),
    }),
    ...(process !== undefined && {
      process: wholeNumber(process, 'isolation.memoryLimit.process', LEAST_PROCESS_MIB, MOST_MIB),
    }),
  };
}
