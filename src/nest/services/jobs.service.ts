import { Inject, Injectable } from '@nestjs/common';
import { IsNull, Not, Raw, type FindManyOptions, type Repository } from 'typeorm';
import { toMilliseconds, type Duration } from '../../job/duration.js';
import type { JobProcessFacts, JobProgress } from '../../job/process-facts.js';
import type { JobUpdate, RunLog, WatchOptions } from '../../job/job-update.js';
import { isRefusal } from '../../database/database-error.js';
import { notesOfJob, notesOfRun } from '../../features/run-log/run-log.sql.js';
import { releaseEntry } from '../../lifecycle/claim/quarantine.sql.js';
import { unrunnableJobs, type UnrunnableJobs } from '../../node/unrunnable-jobs.sql.js';
import {
  BildadConfigError,
  JobNotAvailableError,
  JobTemplateInUseError,
  JobTemplateNotFoundError,
} from '../../job/errors.js';
import {
  duration,
  integer,
  oneOf,
  partial,
  refuseUnknown,
  type SchemaOf,
} from '../../options/reader.js';
import { JobQueueStatus, JobRunResult, JobRunStatus } from '../../job/status.js';
import {
  ensureConfig,
  readConfig,
  updateConfig,
  type ConfigChanges,
} from '../../database/job-config.sql.js';
import type {
  JobConfig,
  JobNode,
  JobQueueEntry,
  JobRun,
  JobTemplate,
} from '../../database/entities/index.js';
import { findEntry, hasProtectedLease, queuePosition } from '../../lifecycle/run/run.sql.js';
import {
  changeTemplate,
  deleteTemplate,
  insertTemplate,
} from '../../lifecycle/templates/template.sql.js';
import { identifier, idOf, listPage, MAX_LIMIT, type Page } from './arguments.js';
import { BILDAD_RUNTIME, type BildadRuntime } from '../module/runtime.js';
import {
  readNewTemplate,
  readTemplateFields,
  type NewTemplate,
  type TemplateFields,
} from '../handlers/template-fields.js';

const PAST = Raw((column) => `${column} <= clock_timestamp()`);
const readConfigChanges = partial({
  defaultPageSize: integer(1, MAX_LIMIT),
  batchSize: integer(1, 100_000),
  leaseMs: integer(1_000, 86_400_000),
} satisfies SchemaOf<ConfigChanges>);
const QUEUE_ORDER = { priority: 'ASC', id: 'ASC' } as const;
const NEWEST_FIRST = { id: 'DESC' } as const;
const OLDEST_FIRST = { id: 'ASC' } as const;

/**
 * Reads jobs, and manages templates and the configuration (upstream's `Jobs`). Lists are pages;
 * times compare with the database's clock.
 */
@Injectable()
export class JobsService {
  constructor(@Inject(BILDAD_RUNTIME) private readonly bildad: BildadRuntime) {}

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

  /**
   * Creates a template by hand; its jobs wait until a node has a handler for its code.
   * @throws BildadConfigError, InvalidJobSchemaError
   */
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

  /**
   * Changes survive deploys, until the class declares a new value for the field.
   * @throws JobTemplateNotFoundError, BildadConfigError, InvalidJobSchemaError
   */
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

  /**
   * @throws JobTemplateInUseError while an entry or a run refers to it, JobTemplateNotFoundError
   */
  async deleteJobTemplate(template: Pick<JobTemplate, 'id'>): Promise<void> {
    const id = idOf(template, 'template');
    const known = await this.templates.findOneBy({ id });
    if (!known) throw new JobTemplateNotFoundError(`template ${id}`);
    // It scans the whole history, which may take longer than the engine's statement timeout.
    const deleted = await this.bildad.store.dataSource.transaction((manager) =>
      deleteTemplate(manager, this.tables, id),
    );
    if (!deleted) throw new JobTemplateInUseError(known.code);
    this.bildad.templates.forget(known.code);
  }

  // Runs

  /** All runs of a job, oldest first. */
  async listJobRunsForIdentifier(jobRunIdentifier: string): Promise<JobRun[]> {
    return this.runs.find({
      where: { jobRunIdentifier: identifier(jobRunIdentifier) },
      order: { retry: 'ASC' },
    });
  }

  /** RUNNING runs past their timeout, which their nodes are about to stop. */
  listJobRunsToKill(page: Page = {}): Promise<JobRun[]> {
    return this.list(this.runs, page, {
      where: { status: JobRunStatus.RUNNING, timeoutAt: PAST },
      order: OLDEST_FIRST,
    });
  }

  /**
   * RUNNING runs with an expired lease whose node is not merely blocked: the next pass ends them.
   */
  listExpiredJobs(page: Page = {}): Promise<JobRun[]> {
    const unprotected = Raw((nodeId) => `NOT ${hasProtectedLease(this.tables, nodeId)}`);
    return this.list(this.runs, page, {
      where: {
        status: JobRunStatus.RUNNING,
        expiresAt: PAST,
        nodeId: unprotected,
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

  /** AVAILABLE and due entries, in the order they will run. */
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

  /** Position in the queue: 1 is next; null when the job is not waiting. */
  async getQueuePositionForJobRunIdentifier(jobRunIdentifier: string): Promise<number | null> {
    return queuePosition(this.db, this.tables, identifier(jobRunIdentifier));
  }

  // Running and waiting jobs

  /**
   * Follows a job on whatever node it runs: its current state first, then each change, its
   * progress, log lines and output, until it ends. States come from the database and none is
   * missed; docs/events.md describes the rest. Leaving the loop frees everything. The loop ends
   * without an `end` update when this engine stops.
   * @throws BildadConfigError at once; in the loop JobNotFoundError and the signal's reason
   */
  watch(jobRunIdentifier: string, options: WatchOptions = {}): AsyncIterableIterator<JobUpdate> {
    refuseUnknown(options, ['signal', 'after', 'pollInterval'], '', 'watch()');
    const { signal, after, pollInterval = '1s' } = options;
    if (signal !== undefined && !(signal instanceof AbortSignal))
      throw new BildadConfigError('signal', 'must be an AbortSignal', {
        got: signal,
        where: 'watch()',
      });
    return this.bildad.watcher.watch(identifier(jobRunIdentifier), {
      signal,
      after,
      pollMs: duration({ min: 100 })(pollInterval, 'pollInterval', 'watch()'),
    });
  }

  /**
   * The stored log lines (module option `logs`) of a run, or of all runs of a job, oldest first.
   * Runs without stored lines are left out.
   * @param of a run, or a job's identifier
   */
  async logs(of: string | Pick<JobRun, 'id'>): Promise<RunLog[]> {
    const found = await (typeof of === 'string'
      ? notesOfJob(this.db, this.tables, 'log', identifier(of))
      : notesOfRun(this.db, this.tables, 'log', idOf(of, 'run')));
    return found.map(({ jobRunId, retry, value }) => {
      const { dropped, lines } = JSON.parse(value) as RunLog;
      const dated = lines.map((line) => ({ ...line, at: new Date(line.at) }));
      return { jobRunId, retry, dropped, lines: dated };
    });
  }

  /**
   * The latest progress of a job, at most half a second old, from its newest run that reported any;
   * null: none did.
   */
  async progressOf(
    jobRunIdentifier: string,
  ): Promise<(JobProgress & Pick<RunLog, 'jobRunId' | 'retry'>) | null> {
    const name = identifier(jobRunIdentifier);
    const found = await notesOfJob(this.db, this.tables, 'progress', name);
    const last = found.at(-1);
    if (!last) return null;
    const { jobRunId, retry, value, at } = last;
    const progress = JSON.parse(value) as Pick<JobProgress, 'fraction' | 'message'>;
    return { jobRunId, retry, ...progress, at };
  }

  /**
   * The state of a run's process. For a run on another node it is as of that node's last heartbeat
   * (five per lease). Null when the run is not RUNNING, or started on another node less than a
   * second ago.
   */
  async inspectJobProcess(run: Pick<JobRun, 'id'>): Promise<JobProcessFacts | null> {
    return this.bildad.inspection.findFacts(idOf(run, 'run'));
  }

  /**
   * Counts jobs by template that are due for longer than `olderThan` (default `'1m'`) and cannot
   * run: the template is inactive, or no live node has a handler for it. Reads all entries when
   * there are such templates.
   * @throws BildadConfigError
   */
  async listUnrunnableJobs({ olderThan = '1m' }: { olderThan?: Duration } = {}): Promise<
    UnrunnableJobs[]
  > {
    const ms = toMilliseconds(olderThan, 'olderThan');
    return unrunnableJobs(this.db, this.tables, ms);
  }

  /**
   * Entries that the database refuses to run: `quarantineReason` says why. They wait for
   * `releaseQuarantined` or `cancelJob`.
   */
  listQuarantinedJobs(page: Page = {}): Promise<JobQueueEntry[]> {
    return this.list(this.entries, page, {
      where: { quarantinedAt: Not(IsNull()) },
      order: OLDEST_FIRST,
    });
  }

  /**
   * Returns a quarantined entry to the queue after its row was repaired; it starts at the next
   * tick.
   * @throws JobNotAvailableError when the row is still malformed, its template is gone, or it is
   *   not quarantined; nothing changes
   */
  async releaseQuarantined(
    entry: Pick<JobQueueEntry, 'id' | 'jobRunIdentifier'>,
  ): Promise<JobQueueEntry> {
    const id = idOf(entry, 'queue entry');
    const refuse = (why: string, cause?: unknown) =>
      new JobNotAvailableError(entry.jobRunIdentifier, why, { cause });
    let released: JobQueueEntry | null;
    try {
      released = await releaseEntry(this.db, this.tables, id);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      throw refuse('its row is still malformed: repair it first', error);
    }
    if (released) return released;
    throw refuse('it is not quarantined, or its template is gone');
  }

  // Nodes

  /**
   * The processes that run jobs, newest first, then those that ended within about a day, the latest
   * end first.
   */
  listNodes(page: Page = {}): Promise<JobNode[]> {
    return this.list(this.repository(this.bildad.entities.JobNode), page, {
      order: {
        endedAt: { direction: 'DESC', nulls: 'FIRST' },
        startedAt: 'DESC',
      },
    });
  }

  // Config

  /** The engine's row, inserted again if it was deleted. */
  async getJobConfig(): Promise<JobConfig> {
    const { name } = this.bildad.settings;
    const config = await readConfig(this.db, this.tables, name);
    if (config) return config;
    await ensureConfig(this.db, this.tables, name);
    return (await readConfig(this.db, this.tables, name))!;
  }

  /** Takes effect on every node at its next pass. @throws BildadConfigError */
  async updateJobConfig(changes: ConfigChanges): Promise<JobConfig> {
    const read = readConfigChanges(changes, '', 'updateJobConfig');
    const { name } = await this.getJobConfig();
    return (await updateConfig(this.db, this.tables, name, read))!;
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
