import { Inject, Injectable } from '@nestjs/common';
import { Raw, type FindManyOptions, type Repository } from 'typeorm';
import {
  BildadConfigError,
  JobTemplateInUseError,
  JobTemplateNotFoundError,
} from '../../job/errors.js';
import { oneOf } from '../../options/reader.js';
import { JobQueueStatus, JobRunResult, JobRunStatus } from '../../job/status.js';
import type { ConfigChanges } from '../../database/job-config.sql.js';
import type {
  JobConfig,
  JobNode,
  JobQueueEntry,
  JobRun,
  JobTemplate,
} from '../../database/entities/index.js';
import { spared } from '../../membership/node.sql.js';
import { findEntry, queuePosition } from '../../lifecycle/run/run.sql.js';
import {
  changeTemplate,
  deleteTemplate,
  insertTemplate,
} from '../../lifecycle/templates/template.sql.js';
import { changeConfig, currentConfig } from './job-config.js';
import { identifier, idOf } from './ids.js';
import { listPage, type Page } from './paging.js';
import { BILDAD_RUNTIME, type BildadRuntime } from '../module/runtime.js';
import {
  readNewTemplate,
  readTemplateFields,
  type NewTemplate,
  type TemplateFields,
} from '../handlers/template-fields.js';
import { TroubledJobs } from './troubled-jobs.js';

const PAST = Raw((column) => `${column} <= clock_timestamp()`);
const QUEUE_ORDER = { priority: 'ASC', id: 'ASC' } as const;
const NEWEST_FIRST = { id: 'DESC' } as const;
const OLDEST_FIRST = { id: 'ASC' } as const;

/** The read side, and templates (upstream's `Jobs`). Lists are pages; what is past a time is so by the database's clock. */
@Injectable()
export class JobsService extends TroubledJobs {
  constructor(@Inject(BILDAD_RUNTIME) protected readonly bildad: BildadRuntime) {
    super();
  }

  // Templates

  /** By display order. @param active default true; `'all'` for both */
  listJobTemplates({ active = true, ...page }: Page & { active?: boolean | 'all' } = {}): Promise<
    JobTemplate[]
  > {
    return this.list(this.templates, page, {
      where: active === 'all' ? {} : { active },
      order: { displayOrder: 'ASC', id: 'ASC' },
    });
  }

  /** A template an operator makes by hand; its entries wait until some node has a handler of its code. @throws BildadConfigError, InvalidJobSchemaError */
  async createJobTemplate(template: NewTemplate): Promise<JobTemplate> {
    const read = readNewTemplate(template);
    const created = await insertTemplate(this.db, this.tables, read);
    if (!created)
      throw new BildadConfigError('code', 'is already the code of another template', {
        got: read.code,
        where: 'createJobTemplate',
      });
    return created;
  }

  /** What is changed here stays through deploys, until the class declares something new for it. @throws JobTemplateNotFoundError, BildadConfigError, InvalidJobSchemaError */
  async updateJobTemplate(
    template: Pick<JobTemplate, 'id'>,
    changes: TemplateFields,
  ): Promise<JobTemplate> {
    if ('code' in changes)
      throw new BildadConfigError('code', "cannot be changed: it is the template's identity", {
        where: 'updateJobTemplate',
      });
    const changed = await changeTemplate(
      this.db,
      this.tables,
      idOf(template, 'template'),
      readTemplateFields(changes, '', 'updateJobTemplate'),
    );
    if (!changed) throw new JobTemplateNotFoundError(`template ${template.id}`);
    this.bildad.templates.forget(changed.code);
    return changed;
  }

  /** @throws JobTemplateInUseError while an entry or a run refers to it, JobTemplateNotFoundError */
  async deleteJobTemplate(template: Pick<JobTemplate, 'id'>): Promise<void> {
    const id = idOf(template, 'template');
    const known = await this.templates.findOneBy({ id });
    if (!known) throw new JobTemplateNotFoundError(`template ${id}`);
    // Looks through the whole history, which may take longer than a statement of the engine may.
    const deleted = await this.bildad.store.dataSource.transaction((manager) =>
      deleteTemplate(manager, this.tables, id),
    );
    if (!deleted) throw new JobTemplateInUseError(known.code);
    this.bildad.templates.forget(known.code);
  }

  // Runs

  /** All runs of a job, the first one first. */
  async listJobRunsForIdentifier(jobRunIdentifier: string): Promise<JobRun[]> {
    return this.runs.find({
      where: { jobRunIdentifier: identifier(jobRunIdentifier) },
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

  /** RUNNING, and their node has not renewed the lease, though it is not merely stuck: the next pass will expire them. */
  listExpiredJobs(page: Page = {}): Promise<JobRun[]> {
    const unspared = Raw((nodeId) => `NOT ${spared(this.tables, nodeId)}`);
    return this.list(this.runs, page, {
      where: {
        status: JobRunStatus.RUNNING,
        expiresAt: PAST,
        nodeId: unspared,
      },
      order: OLDEST_FIRST,
    });
  }

  /** Newest first. */
  async listJobRunsForResult(result: JobRunResult, page: Page = {}): Promise<JobRun[]> {
    oneOf(...Object.values(JobRunResult))(result, 'result', 'listJobRunsForResult');
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

  async getJobQueueEntryForIdentifier(jobRunIdentifier: string): Promise<JobQueueEntry | null> {
    return findEntry(this.db, this.tables, {
      jobRunIdentifier: identifier(jobRunIdentifier),
    });
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
    oneOf(...Object.values(JobQueueStatus))(status, 'status', 'listJobsForStatusInTheQueue');
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
  async getQueuePositionForJobRunIdentifier(jobRunIdentifier: string): Promise<number | null> {
    return queuePosition(this.db, this.tables, identifier(jobRunIdentifier));
  }

  // Nodes

  /** The processes that run jobs, the youngest first; then those that ended within about a day, the last one first. */
  listNodes(page: Page = {}): Promise<JobNode[]> {
    return this.list(this.repository(this.bildad.entities.JobNode), page, {
      order: {
        endedAt: { direction: 'DESC', nulls: 'FIRST' },
        startedAt: 'DESC',
      },
    });
  }

  // Config

  getJobConfig(): Promise<JobConfig> {
    return currentConfig(this.bildad);
  }

  /** In force on every node from its next pass on. @throws BildadConfigError */
  updateJobConfig(changes: ConfigChanges): Promise<JobConfig> {
    return changeConfig(this.bildad, changes);
  }

  private list<T extends object>(
    repository: Repository<T>,
    page: Page,
    query: FindManyOptions<T>,
  ): Promise<T[]> {
    return listPage(
      repository,
      page,
      query,
      async () => (await this.getJobConfig()).defaultPageSize,
    );
  }

  private get db() {
    return this.bildad.store.db;
  }

  private get tables() {
    return this.bildad.store.tables;
  }

  private get templates() {
    return this.repository(this.bildad.entities.JobTemplate);
  }

  private get runs() {
    return this.repository(this.bildad.entities.JobRun);
  }

  private get entries() {
    return this.repository(this.bildad.entities.JobQueueEntry);
  }

  private repository<T extends object>(entity: new () => T): Repository<T> {
    return this.bildad.store.dataSource.getRepository(entity);
  }
}
