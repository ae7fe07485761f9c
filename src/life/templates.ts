import {
  JobTemplateInactiveError,
  JobTemplateNotFoundError,
} from '../model/errors.js';
import { contextContract, type ContextContract } from '../policy/context.js';
import type { HandlerRegistry } from '../runner/handler-registry.js';
import type { JobTemplate } from '../store/entities/index.js';
import { findTemplate } from '../store/template.store.js';
import type { Store } from './store.js';

/** How long an operator's change of a template may go unnoticed by `enqueueJob`. Activity is checked by the insert itself. */
const FRESH_MS = 5_000;

/** A job as the caller names it: by code, with the contract of its class where there is one. */
export interface JobReference {
  code: string;
  contract?: ContextContract;
}

export interface KnownTemplate {
  template: JobTemplate;
  contract: ContextContract;
}

/** Templates by code, as the enqueueing side needs them. */
export class Templates {
  private readonly byCode = new Map<
    string,
    { template: JobTemplate; readAt: number }
  >();

  constructor(
    private readonly store: Store,
    private readonly handlers: HandlerRegistry<ContextContract>,
  ) {}

  /** @throws JobTemplateNotFoundError, JobTemplateInactiveError, InvalidJobSchemaError */
  async resolve({ code, contract }: JobReference): Promise<KnownTemplate> {
    const template = await this.read(code);
    if (!template.active) throw new JobTemplateInactiveError(code);
    return {
      template,
      contract:
        contract ??
        this.handlers.get(code)?.contract ??
        contextContract(template.jobContextSchema, code),
    };
  }

  forget(code: string): void {
    this.byCode.delete(code);
  }

  private async read(code: string): Promise<JobTemplate> {
    const known = this.byCode.get(code);
    if (known && performance.now() - known.readAt < FRESH_MS)
      return known.template;
    const template = await findTemplate(
      this.store.dataSource,
      this.store.tables,
      { code },
    );
    if (!template) throw new JobTemplateNotFoundError(code);
    this.byCode.set(code, { template, readAt: performance.now() });
    return template;
  }
}
