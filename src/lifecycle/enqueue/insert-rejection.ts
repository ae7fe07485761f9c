import { DuplicateJobError } from '../../job/errors.js';
import type { NewEntry } from './enqueue.sql.js';
import type { Queryable } from '../../database/tables.js';
import type { Templates } from '../templates/templates.js';

/** What is to be done about a job that an insert left out. */
export class LeftOut {
  constructor(private readonly templates: Templates) {}

  /** For the template as it is now: it may have been made anew since it was read. */
  async anew(code: string, draft: NewEntry, db?: Queryable): Promise<NewEntry> {
    this.templates.forget(code);
    const { template } = await this.templates.resolve({ code }, db);
    return { ...draft, jobTemplateId: template.id };
  }

  /** Why it was left out: the template inactive or deleted since it was read, else the identifier taken. */
  async refuse(db: Queryable, code: string, { jobRunIdentifier }: NewEntry): Promise<never> {
    this.templates.forget(code);
    await this.templates.resolve({ code }, db);
    throw new DuplicateJobError(jobRunIdentifier);
  }
}
