import { toPlainJson } from '../../context/plain-json.js';
import type { StoredContexts } from '../../context/stored-contexts.js';
import { CarriedContextError, InvalidJobContextError } from '../../job/errors.js';
import type { JobEvents } from '../../job/events.js';
import type { JsonValue } from '../../job/json.js';
import { outcomeOfThrown } from '../../job/outcome.js';
import type { AroundRun, Carrier, ExtensionPoints } from '../../lifecycle/extension-points.js';
import type { JobProcess } from '../../lifecycle/run/job-process.js';
import type { NamedCarrier, Settings } from '../../options/settings.js';

interface Parts {
  settings: Settings;
  extensions: ExtensionPoints;
  contexts: StoredContexts;
  events: JobEvents;
}

const MAX_BYTES = 8_192;

/**
 * The module option `carry`: values captured at enqueue travel with each job and are restored
 * around its run.
 */
export function propagateContext({ settings, extensions, contexts, events }: Parts): void {
  const carriers = settings.carry;
  if (carriers.length === 0) return;
  for (const carrier of carriers) extensions.carriers.register(carrier.name, capturing(carrier));
  extensions.aroundRun.register(
    'propagation',
    restoring(carriers, contexts, (name, error) =>
      events.emit('engine.error', { doing: `carry.${name}: restore(), after its run`, error }),
    ),
  );
}

/** An error in `capture` refuses the call: a job must not be enqueued without its tenant. */
const capturing = ({ name, capture }: NamedCarrier): Carrier => ({
  name,
  capture: () => {
    let value: unknown;
    try {
      value = capture();
      if (value === undefined) return undefined;
      // Refused below; its rejection must not become an unhandled one.
      if (value instanceof Promise) value.catch(() => undefined);
      return toPlainJson(value, MAX_BYTES, 'carry').value;
    } catch (cause) {
      throw new CarriedContextError(name, problemOf(cause), { cause });
    }
  },
});

function problemOf(error: unknown): string {
  if (!(error instanceof InvalidJobContextError))
    return 'capture() threw an error, and nothing was enqueued';
  const { path, message } = error.violations[0]!;
  return `capture() returned a value that cannot be stored: ${path ? `${path} ${message}` : message}`;
}

/**
 * @param reportLate called with an error of a carrier after its run has ended, which no longer
 *   changes the run
 */
function restoring(
  carriers: readonly NamedCarrier[],
  contexts: StoredContexts,
  reportLate: (name: string, error: unknown) => void,
): AroundRun {
  return async (process, _handler, next) => {
    let carried: Record<string, JsonValue> | undefined;
    try {
      const { jobContext, jobRunIdentifier } = process.run;
      carried = contexts.readCarried(jobContext, jobRunIdentifier);
    } catch (error) {
      return process.settle(outcomeOfThrown(error));
    }
    const runInside = (index: number): Promise<void> => {
      const carrier = carriers[index];
      if (!carrier) return next();
      const value = carried?.[carrier.name];
      return restoreOne(process, carrier, value, () => runInside(index + 1), reportLate);
    };
    await runInside(0);
  };
}

/** Never rejects. Resolves when the run inside of it has ended. */
async function restoreOne(
  process: JobProcess,
  { name, restore }: NamedCarrier,
  value: JsonValue | undefined,
  runInside: () => Promise<void>,
  reportLate: (name: string, error: unknown) => void,
): Promise<void> {
  let running: Promise<void> | undefined;
  let hasFailed = false;
  try {
    // A second call of next() returns the same run. After restore() has failed, next() runs
    // nothing.
    await restore(value, () => (running ??= hasFailed ? Promise.resolve() : runInside()));
    if (!running) throw new CarriedContextError(name, 'restore() did not call next()');
    await running;
  } catch (error) {
    hasFailed = true;
    if (!running) return process.settle(outcomeOfThrown(error));
    await running;
    reportLate(name, error);
  }
}
