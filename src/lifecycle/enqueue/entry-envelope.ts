import type { NewEntry } from './enqueue.sql.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import { markStartBefore, type StartBy } from './start-before.sql.js';
import type { Queryable, Tables } from '../../database/tables.js';
import { readStartBy, type EnqueueOptions } from './enqueue-options.js';
import type { Captured } from '../../context/envelope.js';
import type { StoredContexts, Wrapping } from '../../context/stored-contexts.js';
import type { OpenTemplate } from '../templates/templates.js';

/** What entries carry beyond what every entry has. */
export class Carried {
  constructor(
    private readonly contexts: StoredContexts,
    private readonly wrapping: Wrapping,
    readonly startBy: StartBy | null,
  ) {}

  get encrypts(): boolean {
    return this.wrapping.encrypt;
  }

  /** @throws JobEncryptionKeyError */
  wrap(draft: NewEntry): NewEntry {
    return this.contexts.wrap(draft, this.wrapping);
  }

  /** To be called in the transaction that put the entries in: what their statement did not write. */
  async mark(transaction: Queryable, tables: Tables, entries: JobQueueEntry[]): Promise<void> {
    if (!this.startBy || entries.length === 0) return;
    const ids = entries.map(({ id }) => id);
    const times = await markStartBefore(transaction, tables, ids, this.startBy);
    for (const [index, entry] of entries.entries()) entry.startBefore = times[index]!;
  }
}

/**
 * Null for nearly all jobs: they carry nothing.
 * @param captured what the call happens in
 * @param version of the context, where it is not the class's own
 * @throws BildadConfigError
 */
export function carriedBy(
  contexts: StoredContexts,
  { template, traits }: Pick<OpenTemplate, 'template' | 'traits'>,
  options: EnqueueOptions,
  captured: Captured | undefined,
  version = traits.version,
): Carried | null {
  const encrypt = template.encrypt || traits.encrypt;
  if (!encrypt && version === 0 && !captured && options.startBefore === undefined) return null;
  const startBy = readStartBy(options);
  const startBefore = startBy !== null;
  const wrapping = { version, encrypt, startBefore, carried: captured };
  return new Carried(contexts, wrapping, startBy);
}

/** Of a context that is given now; null where it is stored as it is. */
export function wrappingNow(
  { template, traits }: Pick<OpenTemplate, 'template' | 'traits'>,
  startBefore: boolean,
): Wrapping | null {
  const { version } = traits;
  const encrypt = template.encrypt || traits.encrypt;
  return encrypt || startBefore || version > 0 ? { version, encrypt, startBefore } : null;
}
