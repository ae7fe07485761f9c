import type { TermCount } from './file-index.entity.js';

const TERM = /\p{L}{4,40}/gu;
const LETTERS_AT_END = /\p{L}{1,200}$/u;
const WORD = /\S+/g;
/** A file may hold any number of different terms, the process may not. */
const MAX_TERMS = 50_000;

/** Counts lines, words and terms of a text that comes in pieces, cut anywhere. */
export class TextStatistics {
  private newlines = 0;
  private wordCount = 0;
  private inWord = false;
  private last = '';
  private cutOff = '';
  private readonly terms = new Map<string, number>();

  add(text: string): void {
    if (text === '') return;
    for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) this.newlines++;
    this.countWords(text);
    this.countTerms(text);
    this.last = text.at(-1)!;
  }

  /** A last line counts without its newline, too. */
  get lines(): number {
    return this.newlines + (this.last === '' || this.last === '\n' ? 0 : 1);
  }

  /** What white space separates. */
  get words(): number {
    return this.wordCount;
  }

  /** The most frequent ones first. */
  topTerms(limit: number): TermCount[] {
    this.countTermsOf(this.cutOff);
    this.cutOff = '';
    return [...this.terms]
      .map(([term, count]) => ({ term, count }))
      .toSorted((a, b) => b.count - a.count || (a.term < b.term ? -1 : 1))
      .slice(0, limit);
  }

  private countWords(text: string): void {
    this.wordCount += text.match(WORD)?.length ?? 0;
    // The end of the last piece and the start of this one are one word.
    if (this.inWord && /^\S/.test(text)) this.wordCount--;
    this.inWord = /\S$/.test(text);
  }

  private countTerms(text: string): void {
    const whole = this.cutOff + text;
    this.cutOff = LETTERS_AT_END.exec(whole)?.[0] ?? '';
    this.countTermsOf(whole.slice(0, whole.length - this.cutOff.length));
  }

  private countTermsOf(text: string): void {
    for (const [word] of text.matchAll(TERM)) {
      const term = word.toLowerCase();
      const count = this.terms.get(term) ?? 0;
      if (count > 0 || this.terms.size < MAX_TERMS) this.terms.set(term, count + 1);
    }
  }
}
