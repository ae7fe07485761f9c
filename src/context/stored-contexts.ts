import { JobContextVersionError } from '../job/errors.js';
import type { JsonValue } from '../job/json.js';
import type { ClaimedRun } from '../job/run-facts.js';
import { storableOutput } from '../job/storable-output.js';
import type { ContextTraits } from './context-contract.js';
import { ENVELOPE, EncryptedValue, envelopeOf, type Captured, type Enveloped } from './envelope.js';
import type { Keyring } from './keyring.js';
import { toPlainJson } from './plain-json.js';

/** How a context is stored. */
export interface Wrapping {
  version: number;
  encrypt: boolean;
  startBefore: boolean;
  carried?: Captured | undefined;
  /** Cache: the text before an unencrypted context, the same for all jobs of a bulk call. */
  head?: string;
}

/** A context without its envelope, and the version of the class that wrote it. */
export interface OpenContext {
  context: JsonValue;
  version: number;
}

/** Puts contexts and results into envelopes, encrypted if needed, and opens them. */
export class StoredContexts {
  constructor(readonly keyring: Keyring) {}

  /** Returns the new entry with its context in an envelope. @throws JobEncryptionKeyError */
  wrap<Entry extends { jobRunIdentifier: string; jobContext: string; context: JsonValue }>(
    entry: Entry,
    wrapping: Wrapping,
  ): Entry {
    const { jobRunIdentifier, jobContext } = entry;
    if (!wrapping.encrypt) return { ...entry, jobContext: envelopedText(jobContext, wrapping) };
    const stored = this.seal(jobContext, wrapping, jobRunIdentifier);
    // The returned entity shows the context as one that was read from the database does.
    const shown: unknown = new EncryptedValue(stored, stored[ENVELOPE].key!);
    return { ...entry, jobContext: JSON.stringify(stored), context: shown as JsonValue };
  }

  /** Puts a context, given as JSON text, into an envelope. @throws JobEncryptionKeyError */
  wrapJson(json: string, wrapping: Wrapping, jobRunIdentifier: string): string {
    return wrapping.encrypt
      ? JSON.stringify(this.seal(json, wrapping, jobRunIdentifier))
      : envelopedText(json, wrapping);
  }

  private seal(json: string, wrapping: Wrapping, jobRunIdentifier: string): Enveloped {
    const encrypt = (text: string, what: 'context' | 'carried context') =>
      this.keyring.seal(text, { what, jobRunIdentifier });
    const { ofCall, ofJob } = wrapping.carried ?? {};
    return {
      [ENVELOPE]: {
        ...metadata(wrapping),
        ...(ofCall && { carried: ofCall }),
        ...(ofJob && { sealedCarried: encrypt(JSON.stringify(ofJob), 'carried context') }),
        ...encrypt(json, 'context'),
      },
    };
  }

  /** The values that a job carries, by the name of their carrier; undefined: none. @throws JobEncryptionKeyError */
  readCarried(stored: JsonValue, jobRunIdentifier: string): Record<string, JsonValue> | undefined {
    const envelope = envelopeOf(stored);
    if (!envelope?.sealedCarried) return envelope?.carried;
    const owner = { what: 'carried context', jobRunIdentifier } as const;
    const opened = this.keyring.open(envelope.sealedCarried, owner);
    return { ...envelope.carried, ...(opened as Record<string, JsonValue>) };
  }

  /** @throws JobEncryptionKeyError */
  open(stored: JsonValue, jobRunIdentifier: string): OpenContext {
    const envelope = envelopeOf(stored);
    if (!envelope) return { context: stored, version: 0 };
    const { version = 0 } = envelope;
    if (envelope.key === undefined)
      return { context: (stored as unknown as Enveloped).value!, version };
    const owner = { what: 'context', jobRunIdentifier } as const;
    return { context: this.keyring.open(envelope, owner), version };
  }

  /**
   * A run's context in the version of its handler's class, not validated yet.
   * @throws JobEncryptionKeyError, JobContextVersionError, and what `upcast` throws
   */
  async openForHandler(
    { jobContext, jobRunIdentifier, templateCode }: ClaimedRun,
    traits: ContextTraits,
  ): Promise<JsonValue> {
    const open = this.open(jobContext, jobRunIdentifier);
    if (open.version > traits.version)
      throw new JobContextVersionError(templateCode, open.version, traits.version);
    return (await upcastContext(open, traits)).context;
  }

  /** Encrypts a handler's result. @throws JobEncryptionKeyError */
  sealResult(output: unknown, jobRunIdentifier: string): unknown {
    const json = storableOutput(output);
    if (json === null) return undefined;
    return { [ENVELOPE]: this.keyring.seal(json, { what: 'result', jobRunIdentifier }) };
  }

  /** A result as its handler returned it. @throws JobEncryptionKeyError */
  openResult(result: unknown, jobRunIdentifier: string): unknown {
    if (!(result instanceof EncryptedValue)) return result;
    const envelope = EncryptedValue.storedIn(result)[ENVELOPE];
    return this.keyring.open(envelope, { what: 'result', jobRunIdentifier });
  }
}

/** Raises an older context to the class's version. A context of that version, or a newer one, is returned unchanged. */
export async function upcastContext(
  { context, version }: OpenContext,
  { version: current, upcast }: ContextTraits,
): Promise<OpenContext> {
  if (version >= current || !upcast) return { context, version };
  const raised: unknown = await upcast(context, version);
  // The size limit applied when the job was enqueued.
  return { context: toPlainJson(raised, Infinity).value, version: current };
}

const metadata = ({ version, startBefore }: Wrapping) => ({
  ...(version > 0 && { version }),
  ...(startBefore && { startBefore }),
});

/** Works on text, so that a context of a megabyte need not be parsed. */
function envelopedText(json: string, wrapping: Wrapping): string {
  wrapping.head ??= envelopeHead(wrapping);
  return `${wrapping.head}${json}}`;
}

function envelopeHead(wrapping: Wrapping): string {
  const { carried } = wrapping;
  const envelope = {
    ...metadata(wrapping),
    ...(carried && { carried: { ...carried.ofCall, ...carried.ofJob } }),
  };
  return `{"${ENVELOPE}":${JSON.stringify(envelope)},"value":`;
}
