import { existsSync, readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

// docs/life-of-a-job.md lists the files and functions on the path of a job.

const root = new URL('../../', import.meta.url);
const page = readFileSync(new URL('docs/life-of-a-job.md', root), 'utf8');
const steps = [...page.matchAll(/^\| `(src\/[^`]+)` \| (.+) \|$/gm)].map(([, path, names]) => ({
  path: path!,
  names: [...names!.matchAll(/`(\w+)`/g)].map(([, name]) => name!),
}));

it('every file that the page names exists', () => {
  const paths = [...page.matchAll(/`(src\/[\w./-]+)`/g)].map(([, path]) => path!);
  expect(paths.length).toBeGreaterThan(15);
  expect(paths.filter((path) => !existsSync(new URL(path, root)))).toEqual([]);
});

it('every function that the page names is defined in its file', () => {
  const missing = steps.flatMap(({ path, names }) => {
    const text = readFileSync(new URL(path, root), 'utf8');
    const isDefined = (name: string) =>
      new RegExp(
        String.raw`^\s*(export |private |async |const |class |function |readonly )*${name}\b\s*[<(={:]|(class|function|const) ${name}\b`,
        'm',
      ).test(text);
    return names.filter((name) => !isDefined(name)).map((name) => `${path}: ${name}`);
  });
  expect(steps.length).toBeGreaterThan(15);
  expect(missing).toEqual([]);
});

it.each([
  ['a plain enqueue reaches its INSERT', '## 1. Enqueue'],
  ['the outcome of a run reaches its SQL', '## 4. Finish'],
])('%s through at most six files', (_name, heading) => {
  const section = page.slice(page.indexOf(heading)).split(/^## /m)[1]!;
  const files = new Set([...section.matchAll(/^\| `(src\/[^`]+)`/gm)].map(([, path]) => path));
  expect(files.size).toBeGreaterThan(3);
  expect(files.size).toBeLessThanOrEqual(6);
});
