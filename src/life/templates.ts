import {
  JobTemplateInactiveError,
  JobTemplateNotFoundError,
} from '../model/errors.js';
import {
  contextContract,
  narrowed,
  type ContextContract,
} from '../policy/context.js';
import type { HandlerRegistry } from '../runner/handler-registry.js';
import type { JobTemplate } from '../store/entities/index.js';
import {
  findKnownTemplate,
  type KnownTemplate,
} from '../store/template.store.js';
import type { Queryable } from '../store/tables.js';
import type { Store } from './store.js';

/** How long an operator's change of a template may go unnoticed by `enqueueJob`. Activity is checked by the insert itself. */
const FRESH_MS = 5_000;

/** A job as the caller names it: by code, with the contract of its class where there is one. */
export interface JobReference {
  code: string;
  contract?: ContextContract;
}

export interface OpenTemplate {
  template: JobTemplate;
  contract: ContextContract;
}

/** Templates by code, as the enqueueing side needs them. */
export class Templates {
  private readonly byCode = new Map<
    string,
    KnownTemplate & { readAt: number }
  >();

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
    { code, contract }: JobReference,
    db: Queryable = this.store.dataSource,
  ): Promise<OpenTemplate> {
    const { template, operatorSchema } = await this.read(code, db);
    if (!template.active) throw new JobTemplateInactiveError(code);
    const declared =
      contract ??
      this.handlers.get(code)?.contract ??
      contextContract(template.jobContextSchema, code);
    return { template, contract: narrowed(declared, operatorSchema, code) };
  }

  forget(code: string): void {
    this.byCode.delete(code);
  }

  private async read(code: string, db: Queryable): Promise<KnownTemplate> {
    const known = this.byCode.get(code);
    if (known && performance.now() - known.readAt < FRESH_MS) return known;
    const found = await findKnownTemplate(db, this.store.tables, code);
    if (!found) throw new JobTemplateNotFoundError(code);
    // What a transaction sees may never be committed.
    if (db === this.store.dataSource)
      this.byCode.set(code, { ...found, readAt: performance.now() });
    return found;
  }
}
