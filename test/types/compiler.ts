import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const SRC = fileURLToPath(new URL('../../src/', import.meta.url));

/**
 * Strict options, as a careful user sets them, without this repository's path mappings to its
 * sources.
 */
const OPTIONS: ts.CompilerOptions = {
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  target: ts.ScriptTarget.ES2023,
  lib: ['lib.es2023.d.ts'],
  types: ['node'],
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  experimentalDecorators: true,
  emitDecoratorMetadata: true,
  skipLibCheck: true,
  noEmit: true,
};

/** Cache of parsed library declarations: every program needs the same hundreds of files. */
const parsed = new Map<string, ts.SourceFile | undefined>();
const disk = ts.createCompilerHost(OPTIONS);

function sourceFromDisk(
  ...[path, ...rest]: Parameters<ts.CompilerHost['getSourceFile']>
): ts.SourceFile | undefined {
  if (!parsed.has(path)) parsed.set(path, disk.getSourceFile(path, ...rest));
  return parsed.get(path);
}

/** The compiler errors of each text against the built package's declarations, one line each. */
export function compileErrors(texts: Record<string, string>): Record<string, string[]> {
  const files = new Map(Object.entries(texts).map(([name, text]) => [`${HERE}${name}.mts`, text]));
  const host: ts.CompilerHost = {
    ...disk,
    fileExists: (path) => files.has(path) || disk.fileExists(path),
    readFile: (path) => files.get(path) ?? disk.readFile(path),
    getSourceFile: (path, language, ...rest) => {
      const text = files.get(path);
      return text === undefined
        ? sourceFromDisk(path, language, ...rest)
        : ts.createSourceFile(path, text, language);
    },
  };
  const program = ts.createProgram([...files.keys()], OPTIONS, host);
  const isSource = ({ fileName }: ts.SourceFile) => fileName.startsWith(SRC);
  if (program.getSourceFiles().some(isSource)) throw new Error('compiled against the sources');
  return Object.fromEntries(
    [...files.keys()].map((path) => {
      const source = program.getSourceFile(path)!;
      return [
        basename(path, '.mts'),
        [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)].map(
          ({ messageText }) => ts.flattenDiagnosticMessageText(messageText, ' '),
        ),
      ];
    }),
  );
}
