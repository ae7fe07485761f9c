import { JobContextVersionError, JobEncryptionKeyError } from '../../job/errors.js';
import type { ContextTraits } from '../../context/context-contract.js';
import { envelopeOf, type Envelope } from '../../context/envelope.js';
import type { JobEvents } from '../../job/events.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import { comesTooLate } from './run.sql.js';
import type { ClaimJobs } from '../claim/claim.js';
import type { Keyring } from '../../context/keyring.js';
import type { Store } from '../../database/store.js';

type Unable = JobContextVersionError | JobEncryptionKeyError;

/** Runs whose context carries more than itself: whether this node can carry them out, and whether it is in time to. */
export class WrappedRuns {
  constructor(
    private readonly store: Store,
    private readonly claims: ClaimJobs,
    private readonly keyring: Keyring,
    private readonly events: JobEvents,
  ) {}

  /** Why this process cannot carry it out, while another may. */
  unable(
    { templateCode }: ClaimedRun,
    { version = 0, key: ofContext, sealedCarried }: Envelope,
    traits: ContextTraits,
  ): Unable | undefined {
    if (version > traits.version)
      return new JobContextVersionError(templateCode, version, traits.version);
    const key = [ofContext, sealedCarried?.key].find(
      (key) => key !== undefined && !this.keyring.has(key),
    );
    return key === undefined
      ? undefined
      : new JobEncryptionKeyError(
          `this process has no key "${key}" for a ${templateCode}: add it to the module's encryption.keys`,
          key,
        );
  }

  /** Gives it back as if it had not been claimed. @throws what the database says; then its lease does it */
  async putBack(run: ClaimedRun, error: Unable): Promise<void> {
    await this.claims.putBack(run);
    const { jobQueueEntryId, jobRunIdentifier, templateCode } = run;
    this.events.emit('entry.released', {
      jobQueueEntryId,
      jobRunIdentifier,
      templateCode,
      error,
    });
  }

  /** Whether its `startBefore` is over, and it was never started. Asked as late as can be. */
  async missed(run: ClaimedRun): Promise<boolean> {
    if (!envelopeOf(run.jobContext)?.startBefore) return false;
    return comesTooLate(this.store.db, this.store.tables, run);
  }
}
