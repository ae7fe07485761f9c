import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

export interface SourceFile {
  /** From the root: `src/life/claim.ts`. */
  path: string;
  lines: number;
  imports: string[];
  /** The fixed parts of strings and template strings, `?` for what is put in. */
  texts: string[];
}

/** The TypeScript files below a folder of this repository, parsed. */
export function sourceFiles(folder: string): SourceFile[] {
  return readdirSync(join(ROOT, folder), { recursive: true })
    .map((name) => posix.join(folder, String(name).replaceAll('\\', '/')))
    .filter((path) => path.endsWith('.ts') || path.endsWith('.tsx'))
    .toSorted()
    .map(parse);
}

function parse(path: string): SourceFile {
  const text = readFileSync(join(ROOT, path), 'utf8');
  const imports: string[] = [];
  const texts: string[] = [];
  const visit = (node: ts.Node): void => {
    const imported = importOf(node);
    if (imported !== undefined) imports.push(imported);
    else if (ts.isStringLiteralLike(node)) texts.push(node.text);
    else if (ts.isTemplateExpression(node))
      texts.push(
        [node.head, ...node.templateSpans.map(({ literal }) => literal)]
          .map((part) => part.text)
          .join('?'),
      );
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(path, text, ts.ScriptTarget.ESNext, true));
  return { path, lines: text.trimEnd().split('\n').length, imports, texts };
}

/** Of `import`, `export from`, `import()` and `import('x').T`. */
function importOf(node: ts.Node): string | undefined {
  const specifier =
    ts.isImportDeclaration(node) || ts.isExportDeclaration(node)
      ? node.moduleSpecifier
      : ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword
        ? node.arguments[0]
        : ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)
          ? node.argument.literal
          : undefined;
  return specifier && ts.isStringLiteralLike(specifier) ? specifier.text : undefined;
}

/** What a relative import leads to, from the root. */
export const resolved = (from: string, specifier: string) =>
  posix.join(dirname(from), specifier).replace(/\.js$/, '.ts');
