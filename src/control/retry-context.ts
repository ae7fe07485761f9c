import { InvalidJobContextError } from '../job/errors.js';
import type { JsonValue } from '../job/json.js';
import { ANY_CONTEXT, type ContextContract } from '../context/context-contract.js';
import { nameOf } from '../job/storable-output.js';
import { upcastContext, type StoredContexts } from '../context/stored-contexts.js';
import type { OpenTemplate } from '../lifecycle/templates/templates.js';

/** As the database has it. */
export interface StoredRunContext {
  jobRunIdentifier: string;
  jobContext: JsonValue;
}

/**
 * The context of a run of before, to be enqueued once more: in today's form where the class that leads there is known
 * here. Otherwise it stays of its version, and is validated when it runs.
 * @throws JobEncryptionKeyError, InvalidJobContextError where `upcast` throws
 */
export async function asOfNow(
  { jobRunIdentifier, jobContext }: StoredRunContext,
  { contract, traits }: OpenTemplate,
  contexts: StoredContexts,
): Promise<{ context: unknown; contract: ContextContract; version: number }> {
  const open = contexts.open(jobContext, jobRunIdentifier);
  const { context, version } = await upcastContext(open, traits).catch((error: unknown) => {
    if (error instanceof InvalidJobContextError) throw error;
    const message = `cannot be brought to version ${traits.version}: ${nameOf(error)}`;
    throw new InvalidJobContextError([{ path: '', message }]);
  });
  const known = version === traits.version;
  return { context, contract: known ? contract : ANY_CONTEXT, version };
}
