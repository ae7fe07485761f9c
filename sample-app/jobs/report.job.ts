import { InjectRepository } from '@nestjs/typeorm';
import { IsUUID } from 'class-validator';
import { BildadJob, type JobHandler } from 'nestjs-bildad';
import { Repository } from 'typeorm';
import { FileIndex, type FileKind, type TermCount } from '../files/file-index.entity.js';

const TERMS = 10;
const LARGEST = 5;

export class ReportContext {
  @IsUUID()
  scan!: string;
}

export interface Report {
  files: Record<FileKind, number>;
  bytes: number;
  lines: number;
  words: number;
  /** Of the terms that are frequent in some file. */
  topTerms: TermCount[];
  largestFiles: { path: string; bytes: number }[];
}

/** Adds up what the jobs of a scan found. What it returns is kept as the run's output. */
@BildadJob({
  code: 'SAMPLE_REPORT',
  name: 'Report on a scan',
  context: ReportContext,
  timeout: '1m',
})
export class ReportJob implements JobHandler<ReportContext, Report> {
  constructor(
    @InjectRepository(FileIndex)
    private readonly files: Repository<FileIndex>,
  ) {}

  async runJob({ scan }: ReportContext): Promise<Report> {
    const [totals, topTerms, largestFiles] = await Promise.all([
      this.totals(scan),
      this.topTerms(scan),
      this.largestFiles(scan),
    ]);
    return { ...totals, topTerms, largestFiles };
  }

  private async totals(scan: string) {
    const kinds: {
      kind: FileKind;
      files: number;
      bytes: number;
      lines: number;
      words: number;
    }[] = await this.files
      .createQueryBuilder('file')
      .select('file.kind', 'kind')
      .addSelect('count(*)::int', 'files')
      .addSelect('sum(file.bytes)::float8', 'bytes')
      .addSelect('sum(file.lines)::float8', 'lines')
      .addSelect('sum(file.words)::float8', 'words')
      .where('file.scan = :scan', { scan })
      .groupBy('file.kind')
      .getRawMany();
    const of = (kind: FileKind) => kinds.find((row) => row.kind === kind)?.files ?? 0;
    const sum = (column: 'bytes' | 'lines' | 'words') =>
      kinds.reduce((total, row) => total + row[column], 0);
    return {
      files: {
        text: of('text'),
        binary: of('binary'),
        unreadable: of('unreadable'),
      },
      bytes: sum('bytes'),
      lines: sum('lines'),
      words: sum('words'),
    };
  }

  private topTerms(scan: string): Promise<TermCount[]> {
    return this.files.query(
      `SELECT term, sum(count)::int AS count
       FROM ${this.files.metadata.tablePath}, jsonb_to_recordset(top_terms) AS terms (term text, count int)
       WHERE scan = $1 GROUP BY term ORDER BY sum(count) DESC, term LIMIT ${TERMS}`,
      [scan],
    );
  }

  private async largestFiles(scan: string) {
    const files = await this.files.find({
      select: { jobRunIdentifier: true, path: true, bytes: true },
      where: { scan },
      order: { bytes: 'DESC', path: 'ASC' },
      take: LARGEST,
    });
    return files.map(({ path, bytes }) => ({ path, bytes }));
  }
}
