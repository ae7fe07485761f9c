import { Logger } from '@nestjs/common';
import { BildadConfigError } from '../../job/errors.js';
import type { HostKind } from '../../job/job-handler.js';
import { FOR_ROOT, MIN_PROCESS_MIB, type IsolationSettings } from '../../options/settings.js';
import type { HostPools } from '../../lifecycle/run/isolated.js';
import { JobHost } from '../../isolation/job-host.js';
import type { StartHost } from '../../isolation/host-protocol.js';
import { HostPool } from '../../isolation/host-pool.js';
import { startProcess } from '../../isolation/start-host.js';
import { startThread } from '../../isolation/start-host.js';
import { connectionLimit } from '../../isolation/isolated-run.sql.js';
import type { BildadRuntime } from '../module/runtime.js';

/** TypeORM tries for 30 s to connect to an unreachable database. */
const BOOT_MS = 60_000;
/** Time for an idle host to close its module. */
const CLOSE_MS = 2_000;
/** Connections of the engine beside its pool: listener and heartbeat. */
const ENGINE_CONNECTIONS = 2;

const START_HOST: Record<HostKind, StartHost> = {
  thread: startThread(new URL('./thread-main.js', import.meta.url)),
  process: startProcess(new URL('./process-main.js', import.meta.url)),
};

const isolatedCodes = ({ handlers }: BildadRuntime, kind: HostKind) =>
  handlers.codes().filter((code) => handlers.get(code)!.isolation === kind);

/** @throws BildadConfigError when a handler is isolated and the option `isolation` is missing */
export function checkIsolation({ handlers, settings }: BildadRuntime): void {
  if (settings.isolation || settings.role === 'producer') return;
  for (const code of handlers.codes()) {
    const { className, isolation } = handlers.get(code)!;
    if (isolation !== 'inline')
      throw new BildadConfigError(
        'isolation',
        `must be { module, export }: @BildadJob of ${className} has the isolation '${isolation}'`,
        { where: FOR_ROOT },
      );
  }
}

/**
 * Starts one host of each kind that this node's handlers need, so that a host that cannot boot
 * stops the app's start.
 * @returns closes the hosts @throws BildadConfigError; the error of the app's module
 */
export async function startHosts(bildad: BildadRuntime): Promise<() => Promise<void>> {
  const { settings, isolated } = bildad;
  const { isolation, role } = settings;
  if (!isolation || role === 'producer') return async () => {};
  const pools: HostPools = {
    thread: createPool('thread', isolation.threads, isolation, bildad),
    process: createPool('process', isolation.processes, isolation, bildad),
  };
  const kinds = (['thread', 'process'] as const).filter(
    (kind) => isolatedCodes(bildad, kind).length > 0,
  );
  const close = async () => {
    await Promise.all(Object.values(pools).map((pool) => pool.close(CLOSE_MS)));
  };
  const { process: mib = Infinity } = isolation.memoryLimit;
  if (kinds.includes('process') && mib < MIN_PROCESS_MIB)
    throw new BildadConfigError(
      'isolation.memoryLimit',
      `must be at least ${MIN_PROCESS_MIB} (MiB) for a process`,
      { got: mib, where: FOR_ROOT },
    );
  try {
    await Promise.all(
      kinds.map(async (kind) =>
        checkCodes(await pools[kind].warm(), isolatedCodes(bildad, kind), isolation),
      ),
    );
    await warnIfTooManyConnections(bildad, isolation, kinds);
  } catch (error) {
    await close();
    throw error;
  }
  isolated.setPools(pools);
  return close;
}

function createPool(
  kind: HostKind,
  max: number,
  isolation: IsolationSettings,
  { store, settings, events }: BildadRuntime,
): HostPool {
  const { memoryLimit } = isolation;
  const setup = {
    moduleUrl: isolation.module,
    exportName: isolation.export,
    schema: store.tables.schema,
    engineName: settings.name,
    connections: isolation.connections,
  };
  return new HostPool({
    max,
    idleMs: isolation.idleTimeout,
    bootMs: BOOT_MS,
    createHost: (onStrayError) =>
      new JobHost(
        (onMessage) => START_HOST[kind](setup, { memoryLimit: memoryLimit[kind] }, onMessage),
        onStrayError,
      ),
    onError: (doing, error) => events.emit('engine.error', { doing, error }),
  });
}

function checkCodes(
  has: string[],
  needs: string[],
  { export: exportName, module: moduleUrl }: IsolationSettings,
): void {
  const missing = needs.filter((code) => !has.includes(code));
  if (missing.length > 0)
    throw new BildadConfigError(
      'isolation.module',
      `must export a module ${exportName} with the handlers of ${missing.join(', ')}; ${moduleUrl} has ${has.length > 0 ? `only those of ${has.join(', ')}` : 'none'}`,
      { where: FOR_ROOT },
    );
}

/** Warns when one node alone could use all connections of the server. */
async function warnIfTooManyConnections(
  { store, settings }: BildadRuntime,
  { threads, processes, connections }: IsolationSettings,
  kinds: HostKind[],
): Promise<void> {
  const hosts =
    (kinds.includes('thread') ? threads : 0) + (kinds.includes('process') ? processes : 0);
  if (hosts === 0) return;
  // Each host has the pool of its DataSource and the engine's.
  const pools = hosts * 2 * connections + ENGINE_CONNECTIONS;
  const limit = await connectionLimit(store.db);
  if (pools > limit)
    new Logger('Bildad').warn(
      `engine "${settings.name}": ${hosts} hosts for jobs may open ${pools} connections to the database, and the server has ${limit}; lower isolation.threads, isolation.processes or isolation.connections`,
    );
}
