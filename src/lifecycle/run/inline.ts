import { envelopeOf } from '../../context/envelope.js';
import type { ContextContract } from '../../context/context-contract.js';
import type { RegisteredHandler } from '../handler-registry.js';
import type { JobProcess } from './job-process.js';
import type { Strays } from './unhandled-rejections.js';
import { joinable, outside } from '../../database/transactions/current-transaction.js';
import {
  callHandler,
  carryOut,
  type CallHandler,
  type HandlerParts,
  type Launched,
} from './execute-handler.js';
import type { ExtensionPoints } from '../extension-points.js';
import type { WrappedRuns } from './runnable-check.js';

/** Jobs that run in the app's own process. */
export class InlineJobs {
  constructor(
    private readonly parts: HandlerParts,
    private readonly strays: Strays,
    private readonly wrapped: WrappedRuns,
    private readonly extensions: ExtensionPoints,
  ) {}

  /** Settles the process, and never rejects. */
  carryOut(
    process: JobProcess,
    handler: RegisteredHandler<ContextContract>,
    launched?: Launched,
  ): void {
    // Whoever set it off, it is no part of his transaction.
    void (joinable()
      ? outside(() => this.start(process, handler, launched))
      : this.start(process, handler, launched));
  }

  private start(
    process: JobProcess,
    handler: RegisteredHandler<ContextContract>,
    launched?: Launched,
  ): Promise<void> {
    return envelopeOf(process.run.jobContext)?.startBefore
      ? this.inTime(process, handler, launched)
      : this.begin(process, handler, launched);
  }

  private async inTime(
    process: JobProcess,
    handler: RegisteredHandler<ContextContract>,
    launched?: Launched,
  ): Promise<void> {
    try {
      if (await this.wrapped.missed(process.run)) return process.settle({ kind: 'missed' });
    } catch {
      // Nobody knows whether it is in time: it is looked at again.
      return process.settle({ kind: 'interrupted' });
    }
    return this.begin(process, handler, launched);
  }

  private begin(
    process: JobProcess,
    handler: RegisteredHandler<ContextContract>,
    launched?: Launched,
  ): Promise<void> {
    const { parts, call } = this;
    const { active: around } = this.extensions.aroundRun;
    const work = () => carryOut(process, handler, parts, { launched, call });
    return around ? around(process, handler, work) : work();
  }

  private readonly call: CallHandler = (process, ...given) =>
    this.strays.around(process, callHandler, process, ...given);
}
