import type { EntityManager } from 'typeorm';
import type { JobEvents } from '../../job/events.js';
import type { CurrentTransaction } from '../../database/transactions/current-transaction.js';
import { insertEntries, type NewEntry } from './enqueue.sql.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import type { Queryable } from '../../database/tables.js';
import { inTurn } from '../../database/transactions/transaction-mutex.js';
import type { Carried } from './entry-envelope.js';
import { EnqueueMany } from './enqueue-bulk.js';
import { EnqueueNews } from './enqueue-notifier.js';
import type { EnqueueOptions } from './enqueue-options.js';
import { Drafts, type Drafted, type EnqueueCall } from './prepare-entry.js';
import { DoubtfulInserts } from './insert-recovery.js';
import { KeyedInserts } from './enqueue-keyed.js';
import type { WakeUps } from '../../notifications/wake-ups.js';
import type { Identity } from './unique-key-options.js';
import { LeftOut } from './insert-rejection.js';
import { createLockRetry } from '../../database/lock-retry.js';
import { SharedInserts } from './insert-batcher.js';
import type { ExtensionPoints } from '../extension-points.js';
import type { Store } from '../../database/store.js';
import type { StoredContexts } from '../../context/stored-contexts.js';
import type { JobReference, Templates } from '../templates/templates.js';

/** The one door in: what comes through it is AVAILABLE, and its context is valid. */
export class Enqueue {
  private readonly doubtful: DoubtfulInserts;
  private readonly inserts: SharedInserts;
  private readonly keyed: KeyedInserts;
  private readonly leftOut: LeftOut;
  private readonly drafts: Drafts;
  private readonly news: EnqueueNews;
  readonly many: EnqueueMany;

  constructor(
    private readonly store: Store,
    templates: Templates,
    events: JobEvents,
    wakeUps: WakeUps,
    contexts: StoredContexts,
    private readonly extensions: ExtensionPoints,
    maxContextBytes: number,
    private readonly current: CurrentTransaction,
  ) {
    const locks = createLockRetry(store.db);
    this.doubtful = new DoubtfulInserts(store, locks);
    this.leftOut = new LeftOut(templates);
    this.drafts = new Drafts(templates, contexts, extensions, maxContextBytes);
    this.keyed = new KeyedInserts(store, this.doubtful, locks);
    this.news = new EnqueueNews(events, wakeUps);
    this.inserts = new SharedInserts(store, this.doubtful, this.news, locks);
    this.many = new EnqueueMany(
      store,
      templates,
      contexts,
      extensions,
      maxContextBytes,
      current,
      this.doubtful,
      this.leftOut,
      this.news,
    );
  }

  one(
    job: JobReference,
    context: unknown,
    options: EnqueueOptions = {},
    call: EnqueueCall = {},
  ): Promise<JobQueueEntry> {
    const { active: around } = this.extensions.aroundEnqueue;
    return around
      ? around({ templateCode: job.code, bulk: false }, () => this.put(job, context, options, call))
      : this.put(job, context, options, call);
  }

  private async put(
    job: JobReference,
    context: unknown,
    options: EnqueueOptions,
    call: EnqueueCall,
  ): Promise<JobQueueEntry> {
    const manager = this.current.of(options?.manager);
    if (manager) return this.joining(manager, job, context, options, call);
    const drafted = await this.drafts.make(job, context, options, call);
    const { draft, identity, carried } = drafted;
    if (identity || carried?.startBy) return this.special(job.code, drafted, undefined, call);
    const { entry: inserted, told } = await this.inserts.add(draft);
    const entry = inserted ?? (await this.again(job.code, draft));
    this.news.tell(job.code, [entry]);
    const others = !inserted || !told;
    const { wakeHere: here = true } = call;
    this.news.wake(!entry.scheduled, undefined, { here, others });
    return entry;
  }

  /** A caller's own transaction is never mixed with others; what comes after its end is no part of it, and refused. */
  private async joining(
    manager: EntityManager,
    job: JobReference,
    context: unknown,
    options: EnqueueOptions,
    call: EnqueueCall,
  ): Promise<JobQueueEntry> {
    const check = this.current.guard(manager);
    let drafted: Drafted;
    try {
      drafted = await this.drafts.make(job, context, options, call, manager);
    } catch (error) {
      check();
      throw error;
    }
    return inTurn(manager, async () => {
      check();
      if (drafted.identity || drafted.carried?.startBy)
        return this.special(job.code, drafted, manager, call);
      const entry = await this.own(manager, job.code, drafted.draft);
      this.news.wake(!entry.scheduled, manager);
      return entry;
    });
  }

  private special(
    code: string,
    { draft, identity, carried }: Drafted,
    manager: EntityManager | undefined,
    { wakeHere = true }: EnqueueCall,
  ): Promise<JobQueueEntry> {
    return identity
      ? this.underKey(code, draft, identity, manager, wakeHere)
      : this.startingBy(carried!, code, draft, manager, wakeHere);
  }

  /** Two statements, in a transaction of their own where there is none. */
  private async startingBy(
    carried: Carried,
    code: string,
    draft: NewEntry,
    manager: EntityManager | undefined,
    wakeHere: boolean,
  ): Promise<JobQueueEntry> {
    let made: JobQueueEntry | undefined;
    const insert = async (db: Queryable, lockWaitMs?: number) => {
      made = await this.own(db, code, draft, lockWaitMs);
      await carried.mark(db, this.store.tables, [made]);
    };
    const committed = (lockWaitMs?: number) =>
      this.doubtful.committed(
        (db) => insert(db, lockWaitMs),
        () => draft,
      );
    if (manager) await insert(manager);
    else await (draft.named ? this.inserts.patiently(committed) : committed());
    const entry = made!;
    if (!manager) this.news.tell(code, [entry]);
    this.news.wake(!entry.scheduled, manager, { here: wakeHere });
    return entry;
  }

  private async underKey(
    code: string,
    draft: NewEntry,
    identity: Identity,
    manager: EntityManager | undefined,
    wakeHere: boolean,
  ): Promise<JobQueueEntry> {
    const keyed = await this.keyed.insert(
      draft,
      identity,
      (draft) => this.leftOut.anew(code, draft, manager),
      manager,
    );
    if (!keyed) return this.leftOut.refuse(manager ?? this.store.db, code, draft);
    const { entry, added, written } = keyed;
    if (added && !manager) this.news.tell(code, [entry]);
    const due = written && !entry.scheduled;
    this.news.wake(due, manager, { here: wakeHere, others: true });
    return entry;
  }

  private async own(
    db: Queryable,
    code: string,
    draft: NewEntry,
    lockWaitMs?: number,
  ): Promise<JobQueueEntry> {
    const { tables } = this.store;
    const [entry] = await insertEntries(db, tables, [draft], lockWaitMs);
    return entry ?? this.leftOut.refuse(db, code, draft);
  }

  /** A generated identifier is nobody else's: then the template was made anew since it was read. */
  private async again(code: string, draft: NewEntry): Promise<JobQueueEntry> {
    const { db } = this.store;
    if (draft.named) return this.leftOut.refuse(db, code, draft);
    const anew = await this.leftOut.anew(code, draft);
    const { entry } = await this.inserts.add(anew);
    return entry ?? this.leftOut.refuse(db, code, anew);
  }
}
