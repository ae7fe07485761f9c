import { Type } from 'class-transformer';
import {
  IsDate,
  IsNotEmpty,
  IsObject,
  IsOptional,
  IsString,
  ValidateNested,
} from 'class-validator';
import type { EnqueueOptions } from 'nestjs-bildad';

/** What a caller from outside may choose; Bildad itself checks the values. */
export class EnqueueOptionsDto implements Omit<EnqueueOptions, 'manager'> {
  @IsOptional()
  jobRunIdentifier?: string;

  @IsOptional()
  priority?: number;

  @IsOptional()
  @Type(() => Date)
  @IsDate()
  runAt?: Date;

  @IsOptional()
  delay?: number | string;

  @IsOptional()
  timeout?: number | string;

  @IsOptional()
  maxRetries?: number;
}

export class EnqueueDto {
  @IsString()
  @IsNotEmpty()
  code!: string;

  /** What it must be, the job's template says. */
  @IsOptional()
  context: unknown = {};

  @IsOptional()
  @IsObject()
  @ValidateNested()
  @Type(() => EnqueueOptionsDto)
  options?: EnqueueOptionsDto;
}
