import {
  NO_TRAITS,
  type ContextTraits,
  contextContract,
  withOperatorSchema,
  type ContextContract,
} from '../../context/context-contract.js';
import {
  BildadDatabaseError,
  JobTemplateInactiveError,
  JobTemplateNotFoundError,
} from '../../job/errors.js';
import type { HandlerRegistry } from '../handler-registry.js';
import type { JobTemplate } from '../../database/entities/index.js';
import { findKnownTemplate, type KnownTemplate } from './template.sql.js';
import { databaseCode } from '../../database/database-error.js';
import type { Queryable, Tables } from '../../database/tables.js';
import type { Store } from '../../database/store.js';

/** From this age on, a template is read again in the background. */
const FRESH_MS = 2_500;
/** From this age on, calls wait for that. The insert itself checks whether the template is active. */
const STALE_MS = 5_000;

/** The job of a call: its code, and the contract of its class where there is one. */
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

/** A cache of templates by code, for calls that enqueue. */
export class Templates {
  private readonly byCode = new Map<string, KnownTemplate & { readAt: number }>();
  private readonly reading = new Map<string, Promise<KnownTemplate>>();

  constructor(
    private readonly store: Store,
    private readonly handlers: HandlerRegistry<ContextContract>,
  ) {}

  /**
   * @param db the caller's transaction, if there is one: it holds a connection, and must not wait for a second one
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
      contract: withOperatorSchema(declared, operatorSchema, code),
      traits: traits ?? handler?.traits ?? traitsOf(template),
    };
  }

  /** The template as it is now: it may have been deleted and created again since it was cached. @throws as `resolve` */
  reload(code: string, db?: Queryable): Promise<OpenTemplate> {
    this.forget(code);
    return this.resolve({ code }, db);
  }

  forget(code: string): void {
    this.byCode.delete(code);
    // A read in flight may have seen the old row: its result is not cached.
    this.reading.delete(code);
  }

  private async read(code: string, db: Queryable): Promise<KnownTemplate> {
    const known = this.byCode.get(code);
    if (known) {
      const age = performance.now() - known.readAt;
      if (age < FRESH_MS) return known;
      if (age < STALE_MS) {
        this.readShared(code).catch(() => undefined);
        return known;
      }
    }
    if (db === this.store.db) return this.readShared(code);
    const { tables } = this.store;
    // The transaction may see a template that is never committed: it is not cached.
    const seen = await findKnownTemplate(db, tables, code).catch(tablesMissing(tables));
    // For later calls: a process may enqueue in transactions only.
    this.readShared(code).catch(() => undefined);
    return found(seen, code);
  }

  /** Callers in flight together share a read. */
  private readShared(code: string): Promise<KnownTemplate> {
    const pending = this.reading.get(code);
    if (pending) return pending;
    const { db, tables } = this.store;
    const reading = findKnownTemplate(db, tables, code)
      .catch(tablesMissing(tables))
      .then((template) => {
        const known = found(template, code);
        // Unless it was forgotten meanwhile.
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

/** undefined_table, invalid_schema_name. @throws BildadDatabaseError with what to do, or the error itself */
const tablesMissing =
  ({ schema }: Tables) =>
  (error: unknown): never => {
    const code = databaseCode(error);
    if (code !== '42P01' && code !== '3F000') throw error;
    throw new BildadDatabaseError(
      `the tables of the job engine are not in schema "${schema}" yet: enqueue after the app's init() or listen(), ` +
        `which run the migrations, or let BILDAD_MIGRATIONS run before`,
      code,
      { cause: error },
    );
  };

/** The traits that the last deploy declared, for classes that this process does not have. */
const traitsOf = ({ contextVersion, encrypt }: JobTemplate): ContextTraits =>
  contextVersion === 0 ? NO_TRAITS : { version: contextVersion, upcast: undefined, encrypt };
