import { InjectRepository } from '@nestjs/typeorm';
import { IsBase64, IsNotEmpty, IsOptional, IsString, IsUUID } from 'class-validator';
import { BildadJob, type JobExecution, type JobHandler } from 'nestjs-bildad';
import { Repository } from 'typeorm';
import { FileIndex, type FileKind } from '../files/file-index.entity.js';
import { readFacts } from '../files/read-file.js';
import { fileOf } from '../files/walk.js';

export class IndexFileContext {
  @IsUUID()
  scan!: string;

  @IsString()
  @IsNotEmpty()
  folder!: string;

  /** Below the folder. */
  @IsString()
  @IsNotEmpty()
  path!: string;

  @IsOptional()
  @IsBase64()
  pathBytes?: string;
}

export interface IndexFileResult {
  kind: FileKind;
  bytes: number;
}

/** Reads one file and keeps what it found. Running it twice does no harm: the second run writes the same row. */
@BildadJob({
  code: 'SAMPLE_INDEX_FILE',
  name: 'Index a file',
  context: IndexFileContext,
  timeout: '10m',
  maxRetries: 2,
})
export class IndexFileJob implements JobHandler<IndexFileContext, IndexFileResult> {
  constructor(
    @InjectRepository(FileIndex)
    private readonly files: Repository<FileIndex>,
  ) {}

  async runJob(context: IndexFileContext, job: JobExecution): Promise<IndexFileResult> {
    const { scan, folder, path } = context;
    const facts = await readFacts(fileOf(folder, context), job.signal, (fraction) =>
      job.progress(fraction),
    );
    // A killed job must not write any more.
    job.signal.throwIfAborted();
    const { jobRunIdentifier } = job;
    await this.files.upsert({ jobRunIdentifier, scan, path, ...facts }, ['jobRunIdentifier']);
    return { kind: facts.kind, bytes: facts.bytes };
  }
}
