import {
  Injectable,
  Scope,
  UseGuards,
  UseInterceptors,
  type CallHandler,
  type CanActivate,
  type ExecutionContext,
  type NestInterceptor,
} from '@nestjs/common';
import { InjectDataSource } from '@nestjs/typeorm';
import { BildadJob, OnJobEvent, type JobExecution } from 'nestjs-bildad';
import type { DataSource } from 'typeorm';

@Injectable()
class Guard implements CanActivate {
  canActivate(): boolean {
    return true;
  }
}

@Injectable()
class Interceptor implements NestInterceptor {
  intercept(_host: ExecutionContext, next: CallHandler) {
    return next.handle();
  }
}

@BildadJob({ code: 'PLAIN' })
export class PlainJob {
  async runJob(_context: object, _job: JobExecution): Promise<void> {}
}

@BildadJob({ code: 'GUARDED' })
@UseGuards(Guard)
export class GuardedJob extends PlainJob {}

@BildadJob({ code: 'SURROUNDED' })
@UseGuards(Guard)
@UseInterceptors(Interceptor)
export class SurroundedJob extends PlainJob {}

@BildadJob({ code: 'REQUEST' })
@Injectable({ scope: Scope.REQUEST })
export class RequestJob extends PlainJob {}

@BildadJob({ code: 'LOGGING' })
export class LoggingJob extends PlainJob {
  override async runJob(_context: object, job: JobExecution): Promise<void> {
    job.log('a line of it');
  }
}

@BildadJob({ code: 'PROGRESSING' })
export class ProgressingJob extends PlainJob {
  override async runJob(_context: object, job: JobExecution): Promise<void> {
    job.progress(0.5, 'half way');
    job.progress(1, 'all of it');
  }
}

@BildadJob({ code: 'TELLING' })
export class TellingJob extends PlainJob {
  override async runJob(_context: object, job: JobExecution): Promise<void> {
    job.log('a line of it');
    job.progress(0.5, 'half way');
    job.progress(1, 'all of it');
  }
}

/** As little as a job does that is worth a queue: two statements. */
@BildadJob({ code: 'WORKING' })
export class WorkingJob {
  constructor(@InjectDataSource() private readonly dataSource: DataSource) {}

  async runJob(_context: object, _job: JobExecution): Promise<void> {
    await this.dataSource.query('SELECT 1');
    await this.dataSource.query('SELECT 2');
  }
}

@BildadJob({ code: 'WORKING_AND_TELLING' })
export class WorkingAndTellingJob extends WorkingJob {
  override async runJob(context: object, job: JobExecution): Promise<void> {
    job.log('a line of it');
    job.progress(0.5, 'half way');
    await super.runJob(context, job);
    job.progress(1, 'all of it');
  }
}

@Injectable()
export class Listening {
  ends = 0;

  @OnJobEvent('run.succeeded')
  over(): void {
    this.ends++;
  }
}
