/** What an app may be made of. Two values of two columns meet in at least one row. */
export interface Combination {
  /** Major of Node; 20 is the oldest there may be. */
  node: 20 | 22 | 24;
  nest: 11 | 12;
  typeorm: '0.3' | '1';
  /** What the app's TypeScript becomes. */
  module: 'CommonJS' | 'ESM';
  http: 'Express' | 'Fastify';
}

// Each of these rows differs in all columns from one other at the most: six are the fewest for three Nodes.
export const COMBINATIONS: readonly Combination[] = [
  { node: 20, nest: 11, typeorm: '0.3', module: 'CommonJS', http: 'Express' },
  { node: 22, nest: 11, typeorm: '1', module: 'ESM', http: 'Express' },
  { node: 24, nest: 11, typeorm: '1', module: 'CommonJS', http: 'Fastify' },
  { node: 24, nest: 12, typeorm: '0.3', module: 'ESM', http: 'Express' },
  { node: 22, nest: 12, typeorm: '0.3', module: 'CommonJS', http: 'Fastify' },
  { node: 20, nest: 12, typeorm: '1', module: 'ESM', http: 'Fastify' },
];

export const NODES: Record<Combination['node'], string> = {
  20: '20.19.0',
  22: '22',
  24: '24',
};

/** The lowest that the peer ranges allow, all at once. */
export const LOWEST: Record<string, string> = {
  '@nestjs/common': '11.0.0',
  '@nestjs/core': '11.0.0',
  '@nestjs/schedule': '6.0.0',
  '@nestjs/typeorm': '11.0.0',
  'class-transformer': '0.5.1',
  'class-validator': '0.14.0',
  pg: '8.11.0',
  'reflect-metadata': '0.2.0',
  rxjs: '7.2.0',
  typeorm: '0.3.20',
};

export interface Install {
  packages: Record<string, string>;
  /** More for npm. */
  flags: string[];
}

/** One for each Nest and TypeORM. */
export function installOf({ nest, typeorm }: Combination): Install {
  const lowest = nest === 11 && typeorm === '0.3';
  const newest = {
    '@nestjs/common': `${nest}`,
    '@nestjs/core': `${nest}`,
    '@nestjs/platform-fastify': `${nest}`,
    '@nestjs/schedule': nest === 11 ? '6' : '12',
    '@nestjs/typeorm': `${nest}`,
    'class-transformer': '0.5',
    'class-validator': '0.15',
    pg: '8',
    'reflect-metadata': '0.2',
    rxjs: '7',
    typeorm,
  };
  return {
    packages: {
      ...(lowest ? LOWEST : newest),
      '@nestjs/platform-express': lowest ? '11.0.0' : `${nest}`,
      '@types/node': '20',
    },
    // As pnpm does it: a package finds what it declares, and nothing else.
    flags: nest === 12 && typeorm === '1' ? ['--install-strategy=linked'] : [],
  };
}
