import { Inject, Injectable } from '@nestjs/common';
import { Raw, type FindManyOptions, type Repository } from 'typeorm';
import {
  BildadConfigError,
  JobTemplateInUseError,
  JobTemplateNotFoundError,
} from '../model/errors.js';
import { oneOf, refuseUnknown, text, wholeNumber } from '../model/settings.js';
import { JobQueueStatus, JobRunResult, JobRunStatus } from '../model/status.js';
import {
  ensureConfig,
  readConfig,
  updateConfig,
  type ConfigChanges,
} from '../store/config.store.js';
import type {
  JobConfig,
  JobQueueEntry,
  JobRun,
  JobTemplate,
} from '../store/entities/index.js';
import { findEntry, queuePosition } from '../store/run.store.js';
import {
  changeTemplate,
  deleteTemplate,
  insertTemplate,
} from '../store/template.store.js';
import { BILDAD_RUNTIME, type BildadRuntime } from './runtime.js';
import {
  readTemplateFields,
  type NewTemplate,
  type TemplateFields,
} from './template-fields.js';

export interface Page {
  /** From 0. Default 0. */
  page?: number;
  /** Default: the config's `defaultPageSize`. */
  limit?: number;
}

const MAX_LIMIT = 1_000;
const PAST = Raw((column) => `${column} <= clock_timestamp()`);
const QUEUE_ORDER = { priority: 'ASC', id: 'ASC' } as const;
const NEWEST_FIRST = { id: 'DESC' } as const;
const OLDEST_FIRST = { id: 'ASC' } as const;

/** The read side, and templates (upstream's `Jobs`). Lists are pages; what is past a time is so by the database's clock. */
@Injectable()
export class JobsService {
  constructor(@Inject(BILDAD_RUNTIME) private readonly bildad: BildadRuntime) {}

  // Templates

  /** By display order. @param active default true; `'all'` for both */
  listJobTemplates({
    active = true,
    ...page
  }: Page & { active?: boolean | 'all' } = {}): Promise<JobTemplate[]> {
    return this.list(this.templates, page, {
      where: active === 'all' ? {} : { active },
      order: { displayOrder: 'ASC', id: 'ASC' },
    });
  }

  /** A template an operator makes by hand; its entries wait until some node has a handler of its code. @throws BildadConfigError, InvalidJobSchemaError */
  async createJobTemplate(template: NewTemplate): Promise<JobTemplate> {
    const code = text(template.code, 'code');
    const created = await insertTemplate(this.db, this.tables, {
      name: code,
      jobModuleName: '',
      displayOrder: 0,
      defaultTimeoutMs: 3_600_000,
      defaultMaxRetries: 3,
      defaultPriority: 5,
      defaultBackoff: null,
      jobContextSchema: {},
      active: true,
      ...readTemplateFields(template),
      code,
    });
    if (!created)
      throw new BildadConfigError('code', 'a code that no template has', code);
    return created;
  }

  /** What is changed here stays through deploys, until the class declares something new for it. @throws JobTemplateNotFoundError, BildadConfigError, InvalidJobSchemaError */
  async updateJobTemplate(
    template: Pick<JobTemplate, 'id'>,
    changes: TemplateFields,
  ): Promise<JobTemplate> {
    if ('code' in changes)
      throw new BildadConfigError(
        'code',
        'no change: the code names a template for ever',
        changes.code,
      );
    const changed = await changeTemplate(
      this.db,
      this.tables,
      template.id,
      readTemplateFields(changes),
    );
    if (!changed) throw new JobTemplateNotFoundError(`template ${template.id}`);
    this.bildad.templates.forget(changed.code);
    return changed;
  }

  /** @throws JobTemplateInUseError while an entry or a run refers to it, JobTemplateNotFoundError */
  async deleteJobTemplate(template: Pick<JobTemplate, 'id'>): Promise<void> {
    const known = await this.templates.findOneBy({ id: template.id });
    if (!known) throw new JobTemplateNotFoundError(`template ${template.id}`);
    const deleted = await this.db.transaction((manager) =>
      deleteTemplate(manager, this.tables, template.id),
    );
    if (!deleted) throw new JobTemplateInUseError(known.code);
    this.bildad.templates.forget(known.code);
  }

  // Runs

  /** All runs of a job, the first one first. */
  listJobRunsForIdentifier(jobRunIdentifier: string): Promise<JobRun[]> {
    return this.runs.find({
      where: { jobRunIdentifier },
      order: { retry: 'ASC' },
    });
  }

  /** RUNNING and past their timeout: the killers of their nodes are about to stop them. */
  listJobRunsToKill(page: Page = {}): Promise<JobRun[]> {
    return this.list(this.runs, page, {
      where: { status: JobRunStatus.RUNNING, timeoutAt: PAST },
      order: OLDEST_FIRST,
    });
  }

  /** RUNNING, and their node has not renewed the lease: the next pass will expire them. */
  listExpiredJobs(page: Page = {}): Promise<JobRun[]> {
    return this.list(this.runs, page, {
      where: { status: JobRunStatus.RUNNING, expiresAt: PAST },
      order: OLDEST_FIRST,
    });
  }

  /** Newest first. */
  async listJobRunsForResult(
    result: JobRunResult,
    page: Page = {},
  ): Promise<JobRun[]> {
    oneOf(result, 'result', Object.values(JobRunResult));
    return this.list(this.runs, page, {
      where: { result },
      order: NEWEST_FIRST,
    });
  }

  listRunningJobRuns(page: Page = {}): Promise<JobRun[]> {
    return this.list(this.runs, page, {
      where: { status: JobRunStatus.RUNNING },
      order: OLDEST_FIRST,
    });
  }

  /** Newest first. */
  listAllJobRuns(page: Page = {}): Promise<JobRun[]> {
    return this.list(this.runs, page, { order: NEWEST_FIRST });
  }

  getNumberOfJobRuns(): Promise<number> {
    return this.runs.count();
  }

  // Queue

  getJobQueueEntryForIdentifier(
    jobRunIdentifier: string,
  ): Promise<JobQueueEntry | null> {
    return findEntry(this.db, this.tables, { jobRunIdentifier });
  }

  /** AVAILABLE and due, in the order they will run. */
  listJobsToRunInTheQueue(page: Page = {}): Promise<JobQueueEntry[]> {
    return this.list(this.entries, page, {
      where: { status: JobQueueStatus.AVAILABLE, runAt: PAST },
      order: QUEUE_ORDER,
    });
  }

  listRunningJobsInTheQueue(page: Page = {}): Promise<JobQueueEntry[]> {
    return this.listJobsForStatusInTheQueue(JobQueueStatus.RUNNING, page);
  }

  async listJobsForStatusInTheQueue(
    status: JobQueueStatus,
    page: Page = {},
  ): Promise<JobQueueEntry[]> {
    oneOf(status, 'status', Object.values(JobQueueStatus));
    return this.list(this.entries, page, {
      where: { status },
      order: QUEUE_ORDER,
    });
  }

  listAllJobsInTheQueue(page: Page = {}): Promise<JobQueueEntry[]> {
    return this.list(this.entries, page, { order: QUEUE_ORDER });
  }

  getNumberOfJobsInTheQueue(): Promise<number> {
    return this.entries.count();
  }

  /** 1 is next; null when it is not waiting in the queue. */
  getQueuePositionForJobRunIdentifier(
    jobRunIdentifier: string,
  ): Promise<number | null> {
    return queuePosition(this.db, this.tables, jobRunIdentifier);
  }

  // Config

  async getJobConfig(): Promise<JobConfig> {
    const { name } = this.bildad.settings;
    const config = await readConfig(this.db, this.tables, name);
    if (config) return config;
    await ensureConfig(this.db, this.tables, name);
    return (await readConfig(this.db, this.tables, name))!;
  }

  /** In force on every node from its next pass on. @throws BildadConfigError */
  async updateJobConfig(changes: ConfigChanges): Promise<JobConfig> {
    refuseUnknown(changes, '', ['defaultPageSize', 'batchSize', 'leaseMs']);
    const within = (field: keyof ConfigChanges, min: number, max: number) => {
      if (changes[field] !== undefined)
        wholeNumber(changes[field], field, min, max);
    };
    within('defaultPageSize', 1, MAX_LIMIT);
    within('batchSize', 1, 100_000);
    within('leaseMs', 1_000, 86_400_000);
    await this.getJobConfig();
    return (await updateConfig(
      this.db,
      this.tables,
      this.bildad.settings.name,
      changes,
    ))!;
  }

  private async list<T extends object>(
    repository: Repository<T>,
    { page = 0, limit }: Page,
    query: FindManyOptions<T>,
  ): Promise<T[]> {
    wholeNumber(page, 'page', 0, Number.MAX_SAFE_INTEGER / MAX_LIMIT);
    const take =
      limit === undefined
        ? (await this.getJobConfig()).defaultPageSize
        : wholeNumber(limit, 'limit', 1, MAX_LIMIT);
    return repository.find({ ...query, take, skip: page * take });
  }

  private get db() {
    return this.bildad.store.dataSource;
  }

  private get tables() {
    return this.bildad.store.tables;
  }

  private get templates() {
    return this.db.getRepository(this.bildad.entities.JobTemplate);
  }

  private get runs() {
    return this.db.getRepository(this.bildad.entities.JobRun);
  }

  private get entries() {
    return this.db.getRepository(this.bildad.entities.JobQueueEntry);
  }
}
