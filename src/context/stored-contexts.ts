import { JobContextVersionError } from '../job/errors.js';
import type { ContextTraits } from './context-traits.js';
import { ENVELOPE, EncryptedValue, envelopeOf, type Enveloped } from './envelope.js';
import type { ClaimedRun } from '../job/run-facts.js';
import type { JsonValue } from '../job/json.js';
import { toPlainJson } from './plain-json.js';
import { storableOutput } from '../job/storable-output.js';
import type { NewEntry } from '../lifecycle/enqueue/enqueue.sql.js';
import type { Keyring } from './keyring.js';
import type { Captured } from '../lifecycle/extension-points.js';

/** What is to be put around a context. */
export interface Wrapping {
  version: number;
  encrypt: boolean;
  startBefore: boolean;
  carried?: Captured | undefined;
  /** What stands before a context that is not encrypted: the same for many. */
  head?: string;
}

/** A context as it was given, and the version that it is of. */
export interface OpenContext {
  context: JsonValue;
  version: number;
}

/** Puts contexts that carry more than themselves into envelopes, and takes them out again. */
export class StoredContexts {
  constructor(readonly keyring: Keyring) {}

  /** The draft with its context as it is to be stored. @throws JobEncryptionKeyError */
  wrap(draft: NewEntry, wrapping: Wrapping): NewEntry {
    const { jobRunIdentifier, jobContext } = draft;
    if (!wrapping.encrypt) return { ...draft, jobContext: enveloped(jobContext, wrapping) };
    const stored = this.sealed(jobContext, wrapping, jobRunIdentifier);
    // As entities show it.
    const shown: unknown = new EncryptedValue(stored, stored[ENVELOPE].key!);
    return {
      ...draft,
      jobContext: JSON.stringify(stored),
      context: shown as JsonValue,
    };
  }

  /** A context as it is to be stored. @param json its own. @throws JobEncryptionKeyError */
  wrapped(json: string, wrapping: Wrapping, jobRunIdentifier: string): string {
    return wrapping.encrypt
      ? JSON.stringify(this.sealed(json, wrapping, jobRunIdentifier))
      : enveloped(json, wrapping);
  }

  private sealed(json: string, wrapping: Wrapping, jobRunIdentifier: string): Enveloped {
    const seal = (text: string, what: 'context' | 'carried context') =>
      this.keyring.seal(text, { what, jobRunIdentifier });
    const { ofCall, ofJob } = wrapping.carried ?? {};
    return {
      [ENVELOPE]: {
        ...said(wrapping),
        ...(ofCall && { carried: ofCall }),
        ...(ofJob && {
          sealedCarried: seal(JSON.stringify(ofJob), 'carried context'),
        }),
        ...seal(json, 'context'),
      },
    };
  }

  /** What a stored context was enqueued in; undefined: nothing is known. @throws JobEncryptionKeyError */
  carriedIn(stored: JsonValue, jobRunIdentifier: string): Record<string, JsonValue> | undefined {
    const envelope = envelopeOf(stored);
    if (!envelope?.sealedCarried) return envelope?.carried;
    const opened = this.keyring.open(envelope.sealedCarried, {
      what: 'carried context',
      jobRunIdentifier,
    });
    return { ...envelope.carried, ...(opened as Record<string, JsonValue>) };
  }

  /** @throws JobEncryptionKeyError */
  open(stored: JsonValue, jobRunIdentifier: string): OpenContext {
    const envelope = envelopeOf(stored);
    if (!envelope) return { context: stored, version: 0 };
    const { version = 0 } = envelope;
    if (envelope.key === undefined)
      return { context: (stored as unknown as Enveloped).value!, version };
    const belonging = { what: 'context', jobRunIdentifier } as const;
    return { context: this.keyring.open(envelope, belonging), version };
  }

  /** A run's context as its handler's class knows it, not validated yet. @throws JobEncryptionKeyError, JobContextVersionError, what `upcast` throws */
  async forHandler(
    { jobContext, jobRunIdentifier, templateCode }: ClaimedRun,
    traits: ContextTraits,
  ): Promise<JsonValue> {
    const open = this.open(jobContext, jobRunIdentifier);
    if (open.version > traits.version)
      throw new JobContextVersionError(templateCode, open.version, traits.version);
    return (await upToDate(open, traits)).context;
  }

  /** A handler's result as it is to be stored. @throws JobEncryptionKeyError */
  sealedResult(output: unknown, jobRunIdentifier: string): unknown {
    const json = storableOutput(output);
    if (json === null) return undefined;
    const belonging = { what: 'result', jobRunIdentifier } as const;
    return { [ENVELOPE]: this.keyring.seal(json, belonging) };
  }

  /** A result as its handler returned it. @throws JobEncryptionKeyError */
  openResult(shown: unknown, jobRunIdentifier: string): unknown {
    if (!(shown instanceof EncryptedValue)) return shown;
    return this.keyring.open(EncryptedValue.storedIn(shown)[ENVELOPE], {
      what: 'result',
      jobRunIdentifier,
    });
  }
}

/** A context in the form of these traits, if they lead from its own to theirs. */
export async function upToDate(
  { context, version }: OpenContext,
  { version: known, upcast }: ContextTraits,
): Promise<OpenContext> {
  if (version >= known || !upcast) return { context, version };
  const raised: unknown = await upcast(context, version);
  // Its size was limited when it was enqueued.
  return { context: toPlainJson(raised, Infinity).value, version: known };
}

const said = ({ version, startBefore }: Wrapping) => ({
  ...(version > 0 && { version }),
  ...(startBefore && { startBefore }),
});

/** Put together as text: a context of a megabyte is not parsed for what stands around it. */
function enveloped(json: string, wrapping: Wrapping): string {
  wrapping.head ??= headOf(wrapping);
  return `${wrapping.head}${json}}`;
}

function headOf(wrapping: Wrapping): string {
  const { carried } = wrapping;
  const envelope = {
    ...said(wrapping),
    ...(carried && { carried: { ...carried.ofCall, ...carried.ofJob } }),
  };
  return `{"${ENVELOPE}":${JSON.stringify(envelope)},"value":`;
}
