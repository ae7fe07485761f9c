import {
  Body,
  Controller,
  Get,
  Headers,
  HttpCode,
  Param,
  Post,
  Query,
  Sse,
  UseFilters,
  UsePipes,
  ValidationPipe,
} from '@nestjs/common';
import { JobEngineService, JobNotFoundError, JobsService, sse, type Page } from 'nestjs-bildad';
import { BildadErrorsFilter } from './bildad-errors.filter.js';
import { EnqueueDto } from './enqueue.dto.js';

@Controller('jobs')
@UseFilters(BildadErrorsFilter)
@UsePipes(
  new ValidationPipe({
    transform: true,
    whitelist: true,
    forbidNonWhitelisted: true,
  }),
)
export class JobsController {
  constructor(
    private readonly engine: JobEngineService,
    private readonly jobs: JobsService,
  ) {}

  /** Enqueues a job and lets the engine look at once. */
  @Post()
  async enqueue(@Body() { code, context, options }: EnqueueDto) {
    const { jobQueueEntry } = await this.engine.enqueueJobAndTriggerEngine(
      code,
      context as object,
      options,
    );
    return jobQueueEntry;
  }

  /** Runs one pass of the engine. */
  @Post('engine/run')
  @HttpCode(200)
  async runEngine() {
    const { start, expire, alreadyRunning } = await this.engine.runJobEngine();
    return {
      start: this.engine.getCounts(start),
      expire: this.engine.getCounts(expire),
      alreadyRunning,
    };
  }

  @Get()
  async list(@Query('page') page?: string, @Query('limit') limit?: string) {
    const asked = pageOf(page, limit);
    const [queue, runs] = await Promise.all([
      this.jobs.listAllJobsInTheQueue(asked),
      this.jobs.listAllJobRuns(asked),
    ]);
    return { queue, runs };
  }

  @Get(':identifier')
  async find(@Param('identifier') identifier: string) {
    // PostgreSQL cannot store a NUL, so no job is called that.
    if (identifier.includes('\0')) throw new JobNotFoundError(identifier);
    const [entry, runs] = await Promise.all([
      this.jobs.getJobQueueEntryForIdentifier(identifier),
      this.jobs.listJobRunsForIdentifier(identifier),
    ]);
    if (!entry && runs.length === 0) throw new JobNotFoundError(identifier);
    return { entry, runs };
  }

  /** Streams the updates of a job: `curl -N http://.../jobs/<identifier>/events`. */
  @Sse(':identifier/events')
  async events(@Param('identifier') identifier: string, @Headers('last-event-id') after?: string) {
    // An unknown job is answered with a 404.
    await this.find(identifier);
    return sse(this.jobs.watch(identifier, after ? { after } : {}));
  }
}

/** What is no number is left to Bildad to refuse. */
function pageOf(page?: string, limit?: string): Page {
  return {
    ...(page !== undefined && { page: Number(page) }),
    ...(limit !== undefined && { limit: Number(limit) }),
  };
}
