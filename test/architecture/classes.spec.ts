import { readFileSync } from 'node:fs';
import ts from 'typescript';
import { expect, it } from 'vitest';
import { sourceFiles } from './source.js';

// A class that needs many others does too much, or should be given one object that holds them.

const MAX_CONSTRUCTOR_PARAMETERS = 10;
/** Base classes that are one concept, not half a file. */
const ABSTRACT = ['src/job/errors.ts'];
/** Classes above the limit. The list may only shrink. */
const EXCEPTIONS = new Set<string>();

const classes = sourceFiles('src').flatMap(({ path }) => {
  const text = readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
  const found: { path: string; name: string; parameters: number; isAbstract: boolean }[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isClassDeclaration(node)) {
      const constructor = node.members.find(ts.isConstructorDeclaration);
      found.push({
        path,
        name: node.name?.text ?? '',
        parameters: constructor?.parameters.length ?? 0,
        isAbstract:
          node.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.AbstractKeyword) ?? false,
      });
    }
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(path, text, ts.ScriptTarget.ESNext, true));
  return found;
});

it(`no class has more than ${MAX_CONSTRUCTOR_PARAMETERS} constructor parameters`, () => {
  const large = classes
    .filter(
      ({ name, parameters }) => parameters > MAX_CONSTRUCTOR_PARAMETERS && !EXCEPTIONS.has(name),
    )
    .map(({ path, name, parameters }) => `${path} ${name}: ${parameters}`);
  expect(classes.length).toBeGreaterThan(50);
  expect(large).toEqual([]);
});

it('no abstract class exists to split a file', () => {
  const paths = classes.filter(({ isAbstract }) => isAbstract).map(({ path }) => path);
  expect(paths).toEqual(ABSTRACT);
});
