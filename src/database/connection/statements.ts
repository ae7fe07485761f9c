import { setTimeout as pause } from 'node:timers/promises';
import { QueryFailedError } from 'typeorm';
import { databaseCode } from '../database-error.js';
import type { PgClient } from './driver.js';
import {
  ConnectionLostError,
  isBroken,
  isCancelled,
  NoAnswerError,
  StatementTimeoutError,
} from './connection-errors.js';

/** Where one connection has died silently, statements on the others are cancelled after this time. */
const SUSPECT_MS = 500;
/** How long a cancelled statement may take to answer: a tenth of the timeout, within these bounds. */
const MIN_CANCEL_MS = 250;
const MAX_CANCEL_MS = 500;

const SERIALIZATION_FAILURE = '40001';
const MAX_TRIES = 20;
const MAX_PAUSE_MS = 10;

/** A process that stops in the middle of a transaction must not hold its locks for ever. */
const IDLE_IN_TRANSACTION_MS = 300_000;

export interface StatementsOptions {
  timeoutMs: number;
  /** Requests the server to cancel the statement of the client. @returns whether the server answers, if it cannot be cancelled */
  cancel: (client: PgClient) => Promise<boolean>;
  /** Called when a connection was lost. */
  onLost: (error: Error) => void;
}

/**
 * Runs statements. A statement that takes longer than the timeout is cancelled. Its answer distinguishes
 * a slow statement from a dead connection: only a missing answer counts as a lost connection.
 */
export class Statements {
  /** A function for each statement that shortens its timeout. */
  private readonly inFlight = new Set<() => void>();
  /** A cancel request may reach another statement of the same connection than was meant. */
  private readonly cancelled = new WeakSet<PgClient>();
  private readonly cancelMs: number;

  constructor(private readonly options: StatementsOptions) {
    const { timeoutMs } = options;
    this.cancelMs = Math.min(Math.max(timeoutMs / 10, MIN_CANCEL_MS), MAX_CANCEL_MS);
  }

  /** In transactions the server cancels the statement itself, a little earlier. */
  private get serverTimeoutMs(): number {
    return Math.ceil(this.options.timeoutMs * 0.9);
  }

  /**
   * The beginning of a transaction. The engine's statements are made for READ COMMITTED, whatever
   * the database's default is.
   */
  get begin(): string {
    return `BEGIN; SET LOCAL transaction_isolation = 'read committed';
      SET LOCAL statement_timeout = ${this.serverTimeoutMs};
      SET LOCAL idle_in_transaction_session_timeout = ${IDLE_IN_TRANSACTION_MS}`;
  }

  /**
   * @param isServerTimed after `begin`: the server cancels the statement itself, a little earlier
   * @throws StatementTimeoutError, QueryFailedError; ConnectionLostError: the connection cannot be
   *   used any more
   */
  run(
    client: PgClient,
    sql: string,
    parameters?: unknown[],
    { isServerTimed = false } = {},
  ): Promise<unknown[]> {
    return new Promise((resolve, reject) => {
      const { timeoutMs, cancel, onLost } = this.options;
      const sentAt = performance.now();
      let serverAnswers = false;
      /** @returns true on the first call */
      const end = () => {
        clearTimeout(timer);
        return this.inFlight.delete(shortenTimeout);
      };
      const fail = (error: Error) => {
        if (!end()) return;
        const elapsedMs = performance.now() - sentAt;
        if (isCancelled(error) && (this.cancelled.has(client) || elapsedMs >= this.serverTimeoutMs))
          return reject(new StatementTimeoutError(sql, parameters, Math.round(elapsedMs)));
        if (!isBroken(error)) return reject(new QueryFailedError(sql, parameters, error));
        if (!serverAnswers) onLost(error);
        reject(new ConnectionLostError(sql, parameters, error, true));
      };
      let isCancelling = false;
      const cancelStatement = (isSuspect: boolean) => {
        isCancelling = true;
        if (!isServerTimed) {
          this.cancelled.add(client);
          void cancel(client).then((answers) => (serverAnswers = answers));
        }
        timer = setTimeout(
          // An answer that has arrived while the event loop was blocked is read first.
          () => setImmediate(() => giveUp(isSuspect)),
          this.cancelMs,
        );
      };
      const giveUp = (isSuspect: boolean) => {
        if (!this.inFlight.has(shortenTimeout)) return;
        fail(new NoAnswerError(timeoutMs));
        if (!isSuspect && !serverAnswers) for (const shortenOther of this.inFlight) shortenOther();
      };
      const shortenTimeout = () => {
        if (isCancelling) return;
        clearTimeout(timer);
        const leftMs = sentAt + timeoutMs - performance.now();
        timer = setTimeout(() => cancelStatement(true), Math.min(leftMs, SUSPECT_MS));
      };
      let timer = setTimeout(() => cancelStatement(false), timeoutMs);
      this.inFlight.add(shortenTimeout);
      client.query(sql, parameters).then((answer) => {
        end();
        resolve(Array.isArray(answer) ? [] : answer.rows);
      }, fail);
    });
  }

  /**
   * A statement that is a transaction of its own, repeated while it conflicts with others: with a
   * stricter `default_transaction_isolation`, claims and ends of two nodes conflict all the time. A
   * statement that fails so has done nothing. `SET` would stay in a session of PgBouncer, and `BEGIN`
   * costs round trips.
   */
  async runSerializable(client: PgClient, sql: string, parameters?: unknown[]): Promise<unknown[]> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.run(client, sql, parameters);
      } catch (error) {
        if (databaseCode(error) !== SERIALIZATION_FAILURE || tries === MAX_TRIES) throw error;
        await pause(Math.random() * MAX_PAUSE_MS);
      }
    }
  }
}
