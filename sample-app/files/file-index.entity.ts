import { Column, Entity, Index, PrimaryColumn } from 'typeorm';

export type FileKind = 'text' | 'binary' | 'unreadable';

export interface TermCount {
  term: string;
  count: number;
}

/**
 * What a job found out about one file: a table of the app's own, beside Bildad's. The job's identifier
 * is the key, so a job that is run again writes the same row again.
 */
@Entity('bildad_sample_files')
export class FileIndex {
  @PrimaryColumn({ name: 'job_run_identifier', type: 'text' })
  jobRunIdentifier!: string;

  /** Which start of the sample it belongs to. */
  @Index()
  @Column({ type: 'uuid' })
  scan!: string;

  /** Below the folder. */
  @Column({ type: 'text' })
  path!: string;

  @Column({ type: 'text' })
  kind!: FileKind;

  @Column({
    type: 'bigint',
    transformer: { to: (bytes: number) => bytes, from: Number },
  })
  bytes!: number;

  /** Lines and words are those of text; 0 for anything else. */
  @Column({ type: 'integer' })
  lines!: number;

  @Column({ type: 'integer' })
  words!: number;

  @Column({ type: 'text', nullable: true })
  sha256!: string | null;

  @Column({ name: 'top_terms', type: 'jsonb' })
  topTerms!: TermCount[];

  /** Why it is unreadable. */
  @Column({ type: 'text', nullable: true })
  problem!: string | null;
}
