import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat } from 'node:fs/promises';
import type { FileIndex } from './file-index.entity.js';
import { TextStatistics } from './text-statistics.js';

const TERMS_KEPT = 25;
const PIECE_BYTES = 64 * 1024;

/** Conditions that trying again does not change. */
const HOPELESS = new Map([
  ['ENOENT', 'vanished'],
  ['ENOTDIR', 'vanished'],
  ['EACCES', 'permission denied'],
  ['EPERM', 'permission denied'],
  ['EISDIR', 'not a regular file'],
  ['ELOOP', 'not a regular file'],
  ['ENAMETOOLONG', 'name too long'],
]);

export type FileFacts = Pick<
  FileIndex,
  'kind' | 'bytes' | 'lines' | 'words' | 'sha256' | 'topTerms' | 'problem'
>;

/**
 * Reads a file piece by piece, whatever its size. A file that cannot be read is a result like any
 * other; an error that may pass (too many open files, a failing disk) is thrown.
 */
export async function readFacts(
  file: string | Buffer,
  signal: AbortSignal,
  onProgress: (fraction: number) => void,
): Promise<FileFacts> {
  try {
    const { size, isFile } = await kindOf(file);
    // Opening a pipe or a device could wait for ever.
    if (!isFile) return unreadable('not a regular file');
    return await stream(file, signal, (bytes) => onProgress(bytes / size));
  } catch (error) {
    const problem = HOPELESS.get((error as NodeJS.ErrnoException).code ?? '');
    if (problem === undefined) throw error;
    return unreadable(problem);
  }
}

async function kindOf(file: string | Buffer) {
  const stats = await lstat(file);
  return { size: stats.size, isFile: stats.isFile() };
}

async function stream(
  file: string | Buffer,
  signal: AbortSignal,
  onProgress: (bytes: number) => void,
): Promise<FileFacts> {
  const hash = createHash('sha256');
  const text = new TextStatistics();
  const decoder = new TextDecoder();
  let bytes = 0;
  let binary = false;
  // The signal ends the stream with an AbortError: nothing is left open.
  for await (const piece of createReadStream(file, {
    signal,
    highWaterMark: PIECE_BYTES,
  }) as AsyncIterable<Buffer>) {
    // As git does it: a NUL near the beginning makes a file binary.
    if (bytes === 0) binary = piece.subarray(0, 8_000).includes(0);
    bytes += piece.length;
    hash.update(piece);
    if (!binary) text.add(decoder.decode(piece, { stream: true }));
    onProgress(bytes);
  }
  if (!binary) text.add(decoder.decode());
  return {
    kind: binary ? 'binary' : 'text',
    bytes,
    lines: text.lines,
    words: text.words,
    sha256: hash.digest('hex'),
    topTerms: text.topTerms(TERMS_KEPT),
    problem: null,
  };
}

function unreadable(problem: string): FileFacts {
  return {
    kind: 'unreadable',
    bytes: 0,
    lines: 0,
    words: 0,
    sha256: null,
    topTerms: [],
    problem,
  };
}
