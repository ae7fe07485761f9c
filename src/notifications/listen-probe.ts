import { randomUUID } from 'node:crypto';
import type { Store } from '../database/store.js';
import type { JobEvents } from '../job/events.js';
import type { PgClient } from '../database/connection/driver.js';
import { isProbe, listen, sendProbe } from './notify.sql.js';
import { runAfter } from '../concurrency/timers.js';

/** A notification takes a millisecond; a server that is this late with it is as good as one that has none. */
const HEARD_WITHIN_MS = 5_000;

/**
 * Whether what is told reaches the listening connection. A LISTEN that nobody refused proves nothing: PgBouncer in
 * transaction mode gives it to whichever server session is free, and `UNLISTEN *` is silent. So we tell ourselves
 * something. Not on the listening connection: there PgBouncer answers from the very session that it had listen.
 */
export class Hearing {
  private awaited: { token: string; heard: (is: boolean) => void } | undefined;
  private deaf = false;
  private over = false;

  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly withinMs = HEARD_WITHIN_MS,
  ) {}

  /** Whether a notification is a probe, this node's or another's: nobody is to wake for it. */
  took(payload: string | undefined): boolean {
    if (!isProbe(payload)) return false;
    if (this.awaited && payload?.endsWith(this.awaited.token)) this.awaited.heard(true);
    return true;
  }

  /** Tells when it begins or ends that nothing is heard. Listens anew in between, if that helps. @returns whether it hears */
  async check(client: PgClient): Promise<boolean> {
    let hears = await this.hears();
    if (!hears && !this.over) {
      await listen(client, this.store.tables);
      hears = await this.hears();
    }
    if (this.over || this.deaf === !hears) return hears;
    this.deaf = !hears;
    this.events.emit('engine.listening', { hears });
    return hears;
  }

  /** Nothing is waited for any more. */
  close(): void {
    this.over = true;
    this.awaited?.heard(false);
  }

  private async hears(): Promise<boolean> {
    const { db, tables } = this.store;
    const token = randomUUID();
    const heard = new Promise<boolean>((resolve) => {
      this.awaited = { token, heard: resolve };
    });
    await sendProbe(db, tables, token);
    const cancel = runAfter(this.over ? 0 : this.withinMs, () => this.awaited?.heard(false));
    try {
      return await heard;
    } finally {
      cancel();
      this.awaited = undefined;
    }
  }
}
