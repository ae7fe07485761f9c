import { QueryFailedError } from 'typeorm';
import type { PgClient } from './driver.js';
import { ConnectionLostError, isBroken, NoAnswerError } from './connection-errors.js';

/** Where one connection has died silently, what is under way on others has so long left to be answered. */
const SUSPECT_MS = 1_000;

/** Statements under way, none of them for longer than the timeout. */
export class Statements {
  /** How to hurry each of them. */
  private readonly underWay = new Set<() => void>();

  constructor(
    private readonly timeoutMs: number,
    private readonly lost: (error: Error) => void,
  ) {}

  /** @throws ConnectionLostError, after which the connection is of no use any more; QueryFailedError */
  ask(client: PgClient, sql: string, parameters?: unknown[]): Promise<unknown[]> {
    return new Promise((resolve, reject) => {
      const { timeoutMs } = this;
      const giveUpAt = performance.now() + timeoutMs;
      // True for the first time.
      const over = () => {
        clearTimeout(timer);
        return this.underWay.delete(hurry);
      };
      const failed = (error: Error) => {
        if (!over()) return;
        if (!isBroken(error)) return reject(new QueryFailedError(sql, parameters, error));
        this.lost(error);
        reject(new ConnectionLostError(sql, parameters, error, true));
      };
      const noAnswer = () => failed(new NoAnswerError(timeoutMs));
      let timer = setTimeout(() => {
        noAnswer();
        for (const hurryOther of this.underWay) hurryOther();
      }, timeoutMs);
      const hurry = () => {
        clearTimeout(timer);
        const left = giveUpAt - performance.now();
        timer = setTimeout(noAnswer, Math.min(left, SUSPECT_MS));
      };
      this.underWay.add(hurry);
      client.query(sql, parameters).then((answer) => {
        over();
        resolve(Array.isArray(answer) ? [] : answer.rows);
      }, failed);
    });
  }
}
