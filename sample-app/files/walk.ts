import type { Dirent } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

const LEFT_OUT = new Set(['.git', 'node_modules', 'dist']);

/** A file below a folder, as a job's context can carry it. */
export interface FoundFile {
  path: string;
  /** The path itself in base64 where it is not UTF-8, which JSON could not carry. */
  pathBytes?: string;
}

export interface Walk {
  files: FoundFile[];
  /** Subfolders that could not be read. */
  closed: string[];
}

/** The regular files below a folder, by name. Symbolic links are not followed, so there are no loops. */
export async function walk(folder: string): Promise<Walk> {
  const files: FoundFile[] = [];
  const closed: string[] = [];
  const waiting: Buffer[] = [Buffer.alloc(0)];
  for (let below = waiting.pop(); below; below = waiting.pop()) {
    const entries = await list(locate(folder, below));
    if (!entries) closed.push(below.toString());
    for (const entry of entries ?? []) {
      const path =
        below.length === 0 ? entry.name : Buffer.concat([below, Buffer.from('/'), entry.name]);
      if (entry.isFile()) files.push(found(path));
      else if (entry.isDirectory() && !LEFT_OUT.has(entry.name.toString())) waiting.push(path);
    }
  }
  files.sort((a, b) => (a.path < b.path ? -1 : 1));
  return { files, closed };
}

/** Where a found file is. */
export function fileOf(folder: string, { path, pathBytes }: FoundFile): string | Buffer {
  return pathBytes === undefined
    ? join(folder, path)
    : locate(folder, Buffer.from(pathBytes, 'base64'));
}

function locate(folder: string, below: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${folder}/`), below]);
}

function found(bytes: Buffer): FoundFile {
  const path = bytes.toString();
  return Buffer.from(path).equals(bytes) ? { path } : { path, pathBytes: bytes.toString('base64') };
}

/** Names come as bytes: a file system does not care whether they are text. */
async function list(folder: Buffer): Promise<Dirent<Buffer>[] | null> {
  try {
    return await readdir(folder, { withFileTypes: true, encoding: 'buffer' });
  } catch {
    return null;
  }
}
