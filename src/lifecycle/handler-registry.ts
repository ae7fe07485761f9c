import type { BackoffFunction } from '../job/backoff.js';
import type { ContextTraits } from '../context/context-contract.js';
import { BildadConfigError } from '../job/errors.js';
import type { Isolation, JobExecution, JobHandler } from '../job/job-handler.js';
import type { TransactionalSettings } from '../options/job-options.js';

/** A handler class of this process. */
export interface RegisteredHandler<Contract = unknown> {
  code: string;
  className: string;
  contract: Contract;
  isolation: Isolation;
  traits: ContextTraits;
  /** Set if the handler runs in a transaction that also ends the run. */
  transactional: TransactionalSettings | undefined;
  /** A backoff function, which cannot be stored in the template. */
  backoff: BackoffFunction | undefined;
  /** @returns the instance that runs one job */
  resolve(context: unknown, job: JobExecution): JobHandler | Promise<JobHandler>;
}

/** The handlers of this process, by template code. */
export class HandlerRegistry<Contract = unknown> {
  private readonly byCode = new Map<string, RegisteredHandler<Contract>>();

  /** @throws BildadConfigError when another class has the code */
  register(handler: RegisteredHandler<Contract>): void {
    const other = this.byCode.get(handler.code);
    if (other)
      throw new BildadConfigError(
        'code',
        `must be unique: "${handler.code}" is also the code of ${other.className}`,
        { where: `@BildadJob of ${handler.className}` },
      );
    this.byCode.set(handler.code, handler);
  }

  get(code: string): RegisteredHandler<Contract> | undefined {
    return this.byCode.get(code);
  }

  codes(): string[] {
    return [...this.byCode.keys()];
  }
}
