import { CarriedContextError, InvalidJobContextError } from '../../job/errors.js';
import type { JsonValue } from '../../job/json.js';
import type { NamedCarrier } from '../../options/settings.js';
import { toPlainJson } from '../../context/plain-json.js';
import { outcomeOfThrown } from '../../job/outcome-of-error.js';
import type { JobProcess } from './job-process.js';
import type { Carrier, AroundRun } from '../extension-points.js';
import type { StoredContexts } from '../../context/stored-contexts.js';

const MAX_BYTES = 8_192;

/** A user's carrier, whose mistakes refuse the call: what it is for must not be lost without a word. */
export const capturing = ({ name, capture }: NamedCarrier): Carrier => ({
  name,
  capture: () => {
    let value: unknown;
    try {
      value = capture();
      if (value === undefined) return undefined;
      if (value instanceof Promise) value.catch(() => undefined);
      return toPlainJson(value, MAX_BYTES, 'carry').value;
    } catch (cause) {
      throw new CarriedContextError(name, whyOf(cause), { cause });
    }
  },
});

function whyOf(error: unknown): string {
  if (!(error instanceof InvalidJobContextError))
    return 'capture() has thrown, and nothing was enqueued';
  const { path, message } = error.violations[0]!;
  return `capture() returned what cannot travel: ${path ? `${path} ${message}` : message}`;
}

/**
 * Runs within what the carriers restore.
 * @param failedLate told what a carrier threw after its run was over: that stays as it is
 */
export function restoring(
  carriers: readonly NamedCarrier[],
  contexts: StoredContexts,
  failedLate: (name: string, error: unknown) => void,
): AroundRun {
  return async (process, _handler, next) => {
    let carried: Record<string, JsonValue> | undefined;
    try {
      const { jobContext, jobRunIdentifier } = process.run;
      carried = contexts.readCarried(jobContext, jobRunIdentifier);
    } catch (error) {
      return process.settle(outcomeOfThrown(error));
    }
    const within = (index: number): Promise<void> => {
      const carrier = carriers[index];
      if (!carrier) return next();
      const { name, restore } = carrier;
      const value = carried?.[name];
      const around = (further: () => Promise<void>) => restore(value, further);
      return one(process, name, around, () => within(index + 1), failedLate);
    };
    await within(0);
  };
}

/** Never rejects, and is over when what is inside of it is. */
async function one(
  process: JobProcess,
  name: string,
  around: (next: () => Promise<void>) => unknown,
  inside: () => Promise<void>,
  failedLate: (name: string, error: unknown) => void,
): Promise<void> {
  let running: Promise<void> | undefined;
  let refused = false;
  try {
    // Called twice, it runs once; called when the run has failed, not at all.
    await around(() => (running ??= refused ? Promise.resolve() : inside()));
    if (!running) throw new CarriedContextError(name, 'restore() did not call next()');
    await running;
  } catch (error) {
    refused = true;
    if (!running) return process.settle(outcomeOfThrown(error));
    await running;
    failedLate(name, error);
  }
}
