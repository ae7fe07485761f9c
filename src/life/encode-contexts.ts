import {
  InvalidJobContextError,
  type ContextViolation,
} from '../model/errors.js';
import type { JsonValue } from '../model/json.js';
import { encodeContext, type ContextContract } from '../policy/context.js';
import { BYTES_PER_STATEMENT } from './gather.js';

/** Larger batches were no faster, and leave the database waiting for the first one. */
const ROWS_PER_BATCH = 2_000;
const MAX_VIOLATIONS = 100;

export interface EncodedContext {
  jobContext: string;
  context: JsonValue;
}

/**
 * Many contexts fit to be stored, in batches of a statement's size, so that one can be inserted while the
 * next is being checked. @throws InvalidJobContextError with the violations of all of them, by index
 */
export async function* encodedBatches(
  contract: ContextContract,
  contexts: readonly unknown[],
  maxBytes: number,
): AsyncGenerator<EncodedContext[]> {
  const violations: ContextViolation[] = [];
  let batch: EncodedContext[] = [];
  let bytes = 0;
  for (const [index, given] of contexts.entries()) {
    try {
      const { json, value } = await encodeContext(contract, given, maxBytes);
      const full =
        batch.length === ROWS_PER_BATCH ||
        bytes + json.length > BYTES_PER_STATEMENT;
      if (full && batch.length > 0 && violations.length === 0) {
        yield batch;
        batch = [];
        bytes = 0;
      }
      batch.push({ jobContext: json, context: value });
      bytes += json.length;
    } catch (error) {
      if (!(error instanceof InvalidJobContextError)) throw error;
      // From here on only to tell all that is wrong.
      batch = [];
      violations.push(...at(index, error.violations));
      if (violations.length >= MAX_VIOLATIONS) break;
    }
  }
  if (violations.length > 0) throw new InvalidJobContextError(violations);
  if (batch.length > 0) yield batch;
}

const at = (index: number, violations: ContextViolation[]) =>
  violations.map(({ path, message }) => ({
    path: path ? `[${index}].${path}` : `[${index}]`,
    message,
  }));
