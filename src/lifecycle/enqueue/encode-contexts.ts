import { InvalidJobContextError, type ContextViolation } from '../../job/errors.js';
import type { JsonValue } from '../../job/json.js';
import { encodeContext, type ContextContract } from '../../context/context-contract.js';
import type { ContextSource } from './context-source.js';
import { BYTES_PER_STATEMENT } from '../../concurrency/write-batcher.js';

/** Larger batches were no faster, and leave the database waiting for the first one. */
const ROWS_PER_BATCH = 2_000;
const MAX_VIOLATIONS = 100;

export interface EncodedContext {
  jobContext: string;
  context: JsonValue;
}

/**
 * Many contexts fit to be stored, in batches of a statement's size, so that one can be inserted while the next is being
 * checked. No more of them are read than that: where they come from is asked for a batch when it is needed, and closed
 * when nobody asks any more. @throws InvalidJobContextError with the violations of all of them, by index; of what is not an
 * array those from the first one's to 2,000 further on
 */
export async function* encodedBatches(
  contract: ContextContract,
  contexts: ContextSource,
  maxBytes: number,
): AsyncGenerator<EncodedContext[], void> {
  const most = Array.isArray(contexts) ? Infinity : ROWS_PER_BATCH;
  const batches = new Batches(contract, maxBytes, most);
  if (Symbol.asyncIterator in contexts)
    for await (const given of contexts) {
      const full = await batches.add(given);
      if (full) yield full;
      if (batches.refused) break;
    }
  // Not with the loop above, which would await a promise among them: that is no context.
  else
    for (const given of contexts) {
      const full = await batches.add(given);
      if (full) yield full;
      if (batches.refused) break;
    }
  const last = batches.end();
  if (last.length > 0) yield last;
}

class Batches {
  private index = 0;
  private batch: EncodedContext[] = [];
  private bytes = 0;
  private readonly violations: ContextViolation[] = [];
  private firstWrong = Infinity;

  constructor(
    private readonly contract: ContextContract,
    private readonly maxBytes: number,
    /** So many contexts behind the first wrong one are looked at. */
    private readonly mostFurther: number,
  ) {}

  /** Whether enough is known to refuse them all. */
  get refused(): boolean {
    return (
      this.violations.length >= MAX_VIOLATIONS || this.index - this.firstWrong > this.mostFurther
    );
  }

  /** @returns the batch that is full without this one */
  async add(given: unknown): Promise<EncodedContext[] | null> {
    const index = this.index++;
    try {
      const { json, value } = await encodeContext(this.contract, given, this.maxBytes);
      // From the first wrong one on only to tell all that is wrong.
      if (this.violations.length > 0) return null;
      const full =
        this.batch.length === ROWS_PER_BATCH ||
        (this.batch.length > 0 && this.bytes + json.length > BYTES_PER_STATEMENT)
          ? this.take()
          : null;
      this.batch.push({ jobContext: json, context: value });
      this.bytes += json.length;
      return full;
    } catch (error) {
      if (!(error instanceof InvalidJobContextError)) throw error;
      this.take();
      this.firstWrong = Math.min(this.firstWrong, index);
      this.violations.push(...at(index, error.violations));
      return null;
    }
  }

  /** @throws InvalidJobContextError */
  end(): EncodedContext[] {
    if (this.violations.length > 0) throw new InvalidJobContextError(this.violations);
    return this.take();
  }

  private take(): EncodedContext[] {
    const { batch } = this;
    this.batch = [];
    this.bytes = 0;
    return batch;
  }
}

const at = (index: number, violations: ContextViolation[]) =>
  violations.map(({ path, message }) => ({
    path: path ? `[${index}].${path}` : `[${index}]`,
    message,
  }));
