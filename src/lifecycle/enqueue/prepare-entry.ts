import type { EntityManager } from 'typeorm';
import { encodeContext } from '../../context/context-contract.js';
import type { NewEntry } from './enqueue.sql.js';
import { asOfNow, type StoredRunContext } from '../../control/retry-context.js';
import { carriedBy, type Carried } from './entry-envelope.js';
import { entryFields, type EnqueueOptions } from './enqueue-options.js';
import { identityOf, refuseCarried, type Identity } from './unique-key-options.js';
import type { ExtensionPoints } from '../extension-points.js';
import type { StoredContexts } from '../../context/stored-contexts.js';
import type { JobReference, Templates } from '../templates/templates.js';

/** What the engine knows of a call beside its options. */
export interface EnqueueCall {
  /** The run that is done again. */
  retryOf?: RetriedRun;
  /** Whether this node is to start the entry when it can. Not where the caller is about to. */
  wakeHere?: boolean;
}

export interface RetriedRun {
  jobRunId: string;
  /** Null where its row is gone. What its job was enqueued in, this one keeps. */
  stored: StoredRunContext | null;
  /** Its context is to be the same. */
  sameContext: boolean;
}

/** A job that may be put in. */
export interface Drafted {
  draft: NewEntry;
  identity: Identity | null;
  carried: Carried | null;
}

/** What is asked for, as it is to be stored, if it is valid. */
export class Drafts {
  constructor(
    private readonly templates: Templates,
    private readonly contexts: StoredContexts,
    private readonly extensions: ExtensionPoints,
    private readonly maxContextBytes: number,
  ) {}

  async make(
    job: JobReference,
    context: unknown,
    options: EnqueueOptions,
    { retryOf }: EnqueueCall,
    manager?: EntityManager,
  ): Promise<Drafted> {
    const before = retryOf?.stored;
    const captured = before
      ? this.extensions.recaptureCarried(
          this.contexts.readCarried(before.jobContext, before.jobRunIdentifier),
        )
      : this.extensions.captureCarried();
    const open = await this.templates.resolve(job, manager);
    const fields = entryFields(open.template, options);
    const identity = identityOf(options);
    const given =
      before && retryOf.sameContext
        ? await asOfNow(before, open, this.contexts)
        : { context, contract: open.contract, version: open.traits.version };
    const { json, value } = await encodeContext(
      given.contract,
      given.context,
      this.maxContextBytes,
    );
    const plain = {
      ...fields,
      jobContext: json,
      context: value,
      retryOfJobRunId: retryOf?.jobRunId ?? null,
    };
    const carried = carriedBy(this.contexts, open, options, captured, given.version);
    if (identity && carried) refuseCarried(carried, identity);
    return { draft: carried?.wrap(plain) ?? plain, identity, carried };
  }
}
