import {
  NO_TRAITS,
  type ContextTraits,
  contextContract,
  narrowed,
  type ContextContract,
} from '../../context/context-contract.js';
import { JobTemplateInactiveError, JobTemplateNotFoundError } from '../../job/errors.js';
import type { HandlerRegistry } from '../handler-registry.js';
import type { JobTemplate } from '../../database/entities/index.js';
import { findKnownTemplate, type KnownTemplate } from './template.sql.js';
import type { Queryable } from '../../database/tables.js';
import type { Store } from '../../database/store.js';

/** From this age on a template is read anew; an operator's change goes unnoticed by `enqueueJob` for no longer than `STALE_MS`. Activity is checked by the insert itself. */
const FRESH_MS = 2_500;
const STALE_MS = 5_000;

/** A job as the caller names it: by code, with the contract of its class where there is one. */
export interface JobReference {
  code: string;
  contract?: ContextContract;
  traits?: ContextTraits;
}

export interface OpenTemplate {
  template: JobTemplate;
  contract: ContextContract;
  traits: ContextTraits;
}

/** Templates by code, as the enqueueing side needs them. */
export class Templates {
  private readonly byCode = new Map<string, KnownTemplate & { readAt: number }>();
  private readonly reading = new Map<string, Promise<KnownTemplate>>();

  constructor(
    private readonly store: Store,
    private readonly handlers: HandlerRegistry<ContextContract>,
  ) {}

  /**
   * @param db the caller's transaction, if there is one: it holds a connection already, and waiting
   *   for a second one could be for ever
   * @throws JobTemplateNotFoundError, JobTemplateInactiveError, InvalidJobSchemaError
   */
  async resolve(
    { code, contract, traits }: JobReference,
    db: Queryable = this.store.db,
  ): Promise<OpenTemplate> {
    const { template, operatorSchema } = await this.read(code, db);
    if (!template.active) throw new JobTemplateInactiveError(code);
    const handler = contract ? undefined : this.handlers.get(code);
    const declared =
      contract ?? handler?.contract ?? contextContract(template.jobContextSchema, code);
    return {
      template,
      contract: narrowed(declared, operatorSchema, code),
      traits: traits ?? handler?.traits ?? traitsOf(template),
    };
  }

  forget(code: string): void {
    this.byCode.delete(code);
    // A look under way may have seen what is to be forgotten: it is not kept.
    this.reading.delete(code);
  }

  private async read(code: string, db: Queryable): Promise<KnownTemplate> {
    const known = this.byCode.get(code);
    if (known) {
      const age = performance.now() - known.readAt;
      if (age < FRESH_MS) return known;
      // Nobody waits for the news as long as it is nearly fresh.
      if (age < STALE_MS) {
        this.readAnew(code).catch(() => undefined);
        return known;
      }
    }
    // What a transaction sees may never be committed, and it has its connection already.
    if (db === this.store.db) return this.readAnew(code);
    const seen = await findKnownTemplate(db, this.store.tables, code);
    // For those that come after: a process may enqueue in transactions only.
    this.readAnew(code).catch(() => undefined);
    return found(seen, code);
  }

  /** Callers in flight together share a look. */
  private readAnew(code: string): Promise<KnownTemplate> {
    const underWay = this.reading.get(code);
    if (underWay) return underWay;
    const { db, tables } = this.store;
    const reading = findKnownTemplate(db, tables, code)
      .then((template) => {
        const known = found(template, code);
        // Not what was to be forgotten meanwhile.
        if (this.reading.get(code) === reading)
          this.byCode.set(code, { ...known, readAt: performance.now() });
        return known;
      })
      .finally(() => {
        if (this.reading.get(code) === reading) this.reading.delete(code);
      });
    this.reading.set(code, reading);
    return reading;
  }
}

/** @throws JobTemplateNotFoundError */
function found(template: KnownTemplate | null, code: string): KnownTemplate {
  if (!template) throw new JobTemplateNotFoundError(code);
  return template;
}

/** Where the class is not known here: its last deploy said so. */
const traitsOf = ({ contextVersion, encrypt }: JobTemplate): ContextTraits =>
  contextVersion === 0 ? NO_TRAITS : { version: contextVersion, upcast: undefined, encrypt };
