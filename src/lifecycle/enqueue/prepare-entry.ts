import { randomFillSync, randomInt } from 'node:crypto';
import type { EntityManager } from 'typeorm';
import { v7 as uuidv7 } from 'uuid';
import {
  ANY_CONTEXT,
  encodeContext,
  type ContextContract,
} from '../../context/context-contract.js';
import {
  upcastContext,
  type StoredContexts,
  type Wrapping,
} from '../../context/stored-contexts.js';
import type { Captured } from '../../context/envelope.js';
import { InvalidJobContextError } from '../../job/errors.js';
import type { JsonValue } from '../../job/json.js';
import { nameOf } from '../../job/storable-output.js';
import type { ExtensionPoints } from '../extension-points.js';
import type { JobReference, OpenTemplate, Templates } from '../templates/templates.js';
import type { NewEntry, StoredRunContext } from './enqueue.sql.js';
import {
  checkKeyedEntry,
  entryFields,
  jobKeyOf,
  readEnqueueOptions,
  type BulkOptions,
  type EnqueueOptions,
  type JobKey,
} from './enqueue-options.js';

/** The run that a new job retries. */
export interface RetriedRun {
  jobRunId: string;
  /** Null if its row is gone. */
  stored: StoredRunContext | null;
  /** The new job gets the stored context, not the one of the call. */
  sameContext: boolean;
  /** Refuse if the run was retried before. */
  once: boolean;
}

/** An entry that is ready to be inserted. */
export interface PreparedJob {
  templateCode: string;
  entry: NewEntry;
  key: JobKey | null;
}

/** The template and options of many jobs, which become entries batch by batch. */
export interface PreparedBulk {
  templateCode: string;
  /** Changes where the template is created again meanwhile. */
  jobTemplateId: string;
  contract: ContextContract;
  toEntries(contexts: EncodedContext[]): NewEntry[];
}

/** JSON text, and its value. */
export interface EncodedContext {
  jobContext: string;
  context: JsonValue;
}

/** The first stage of an enqueue: template, options, context, envelope. Nothing is written. */
export class PrepareEntry {
  constructor(
    private readonly templates: Templates,
    private readonly contexts: StoredContexts,
    private readonly extensions: ExtensionPoints,
    private readonly maxContextBytes: number,
  ) {}

  /** @throws what `JobEngineService.enqueueJob` documents */
  async prepareJob(
    job: JobReference,
    context: unknown,
    options: EnqueueOptions,
    retryOf: RetriedRun | undefined,
    manager?: EntityManager,
  ): Promise<PreparedJob> {
    const captured = this.capture(retryOf);
    const open = await this.templates.resolve(job, manager);
    const read = readEnqueueOptions(options);
    const fields = entryFields(open.template, read);
    const key = jobKeyOf(read);
    const identifier = read.jobRunIdentifier ?? newIdentifier();
    let given: ContextToEncode = { context, contract: open.contract, version: open.traits.version };
    if (retryOf) {
      fields.retryOfJobRunId = retryOf.jobRunId;
      fields.retryOnce = retryOf.once;
      if (retryOf.sameContext && retryOf.stored)
        given = await this.storedContext(retryOf.stored, open);
    }
    const { json, value } = await encodeContext(
      given.contract,
      given.context,
      this.maxContextBytes,
    );
    const entry = { ...fields, jobRunIdentifier: identifier, jobContext: json, context: value };
    if (key && key.delayMs !== null) entry.delayMs = key.delayMs;
    const wrapped = this.wrap(entry, open, captured, given.version);
    if (key) checkKeyedEntry(key, entry.startBefore, encrypts(open));
    return { templateCode: job.code, entry: wrapped, key };
  }

  /** @throws as `prepareJob`, without the contexts' errors */
  async prepareBulk(
    job: JobReference,
    options: BulkOptions,
    manager?: EntityManager,
  ): Promise<PreparedBulk> {
    const captured = this.capture(undefined);
    const open = await this.templates.resolve(job, manager);
    const fields = entryFields(open.template, readEnqueueOptions(options));
    const shared = wrappingOf(open, fields.startBefore !== null, captured);
    const bulk: PreparedBulk = {
      templateCode: job.code,
      jobTemplateId: open.template.id,
      contract: open.contract,
      toEntries: (contexts) =>
        contexts.map(({ jobContext, context }) => {
          const entry = {
            ...fields,
            jobTemplateId: bulk.jobTemplateId,
            jobRunIdentifier: newIdentifier(),
            jobContext,
            context,
          };
          if (this.extensions.beforeEnqueue.active) return this.wrap(entry, open, captured);
          return shared ? this.contexts.wrap(entry, shared) : entry;
        }),
    };
    return bulk;
  }

  /** To be called before anything is awaited. */
  private capture(retryOf: RetriedRun | undefined): Captured | undefined {
    const before = retryOf?.stored;
    return before
      ? this.extensions.recaptureCarried(
          this.contexts.readCarried(before.jobContext, before.jobRunIdentifier),
        )
      : this.extensions.captureCarried();
  }

  private wrap(
    entry: NewEntry,
    open: OpenTemplate,
    captured: Captured | undefined,
    version?: number,
  ): NewEntry {
    const { active: hooks } = this.extensions.beforeEnqueue;
    if (hooks) {
      const prepared = { templateCode: open.template.code, entry, captured };
      for (const hook of hooks) hook(prepared);
      ({ captured } = prepared);
    }
    const wrapping = wrappingOf(open, entry.startBefore !== null, captured, version);
    return wrapping ? this.contexts.wrap(entry, wrapping) : entry;
  }

  /**
   * The context of an earlier run, raised to the version of its class where that is known here. Otherwise it keeps its
   * version, and is validated when it runs.
   * @throws JobEncryptionKeyError, InvalidJobContextError where `upcast` throws
   */
  private async storedContext(
    { jobRunIdentifier, jobContext }: StoredRunContext,
    { contract, traits }: OpenTemplate,
  ): Promise<ContextToEncode> {
    const stored = this.contexts.open(jobContext, jobRunIdentifier);
    const { context, version } = await upcastContext(stored, traits).catch((error: unknown) => {
      if (error instanceof InvalidJobContextError) throw error;
      const message = `cannot be brought to version ${traits.version}: ${nameOf(error)}`;
      throw new InvalidJobContextError([{ path: '', message }]);
    });
    const isCurrent = version === traits.version;
    return { context, contract: isCurrent ? contract : ANY_CONTEXT, version };
  }
}

interface ContextToEncode {
  context: unknown;
  contract: ContextContract;
  version: number;
}

const encrypts = ({ template, traits }: Pick<OpenTemplate, 'template' | 'traits'>) =>
  template.encrypt || traits.encrypt;

/**
 * The envelope of a context; null for most contexts, which have none.
 * @param version of the context, where it is not the class's own
 */
export function wrappingOf(
  open: Pick<OpenTemplate, 'template' | 'traits'>,
  startBefore: boolean,
  captured?: Captured,
  version = open.traits.version,
): Wrapping | null {
  const encrypt = encrypts(open);
  return encrypt || startBefore || version > 0 || captured
    ? { version, encrypt, startBefore, carried: captured }
    : null;
}

const BYTES_PER_IDENTIFIER = 16;
/** A call for random bytes takes 8 µs, for 16 of them as for 4,096. */
const randomPool = Buffer.allocUnsafe(256 * BYTES_PER_IDENTIFIER);
let usedBytes = randomPool.length;
/** Orders identifiers of one millisecond. */
let sequence = randomInt(2 ** 31);

/** A job's default name: a UUID of version 7, which indexes in the order of time. */
function newIdentifier(): string {
  if (usedBytes === randomPool.length) {
    randomFillSync(randomPool);
    usedBytes = 0;
  }
  sequence = (sequence + 1) >>> 0;
  const random = randomPool.subarray(usedBytes, (usedBytes += BYTES_PER_IDENTIFIER));
  return uuidv7({ random, seq: sequence });
}
