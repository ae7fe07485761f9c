import { JobContextVersionError, JobEncryptionKeyError } from '../../job/errors.js';
import type { ContextTraits } from '../../context/context-contract.js';
import type { Envelope } from '../../context/envelope.js';
import type { JobEvents } from '../../job/events.js';
import type { Outcome } from '../../job/outcome.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import { isTooLate } from './run.sql.js';
import type { ClaimJobs } from '../claim/claim.js';
import type { Keyring } from '../../context/keyring.js';
import type { Store } from '../../database/store.js';

/** Why this process cannot run a job that another process may be able to run. */
export type NotRunnableError = JobContextVersionError | JobEncryptionKeyError;

/** Checks claimed runs whose context has an envelope: whether this process can run them, and whether they are too late. */
export class RunnableCheck {
  constructor(
    private readonly store: Store,
    private readonly claims: ClaimJobs,
    private readonly keyring: Keyring,
    private readonly events: JobEvents,
  ) {}

  /** @returns undefined when this process can run it */
  findError(
    { templateCode }: ClaimedRun,
    { version = 0, key: ofContext, sealedCarried }: Envelope,
    traits: ContextTraits,
  ): NotRunnableError | undefined {
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

  /** Releases the claim to other processes. If that fails, the lease of the run expires. Never rejects. */
  async release(run: ClaimedRun, error: NotRunnableError): Promise<void> {
    const { jobQueueEntryId, jobRunIdentifier, templateCode } = run;
    try {
      await this.claims.releaseForOtherNodes(run);
      this.events.emit('entry.released', {
        jobQueueEntryId,
        jobRunIdentifier,
        templateCode,
        error,
      });
    } catch (failure) {
      this.events.emit('engine.error', {
        doing: `releasing run ${run.jobRunId}`,
        error: failure,
      });
    }
  }

  /**
   * For a run with a `startBefore`, as late as possible before its handler starts.
   * @returns undefined when it may start. If the database does not answer, the run is interrupted and claimed again
   */
  async outcomeIfTooLate(
    run: ClaimedRun,
  ): Promise<Extract<Outcome, { kind: 'missed' | 'interrupted' }> | undefined> {
    try {
      const { db, tables } = this.store;
      return (await isTooLate(db, tables, run)) ? { kind: 'missed' } : undefined;
    } catch {
      return { kind: 'interrupted' };
    }
  }
}
