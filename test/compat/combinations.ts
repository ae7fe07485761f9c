/**
 * The versions and choices of an app. Any two values of two columns occur together in at least
 * one row.
 */
export interface Combination {
  /** Major version of Node.js. 20 is the oldest supported. */
  node: 20 | 22 | 24;
  nest: 11 | 12;
  typeorm: '0.3' | '1';
  /** The module format that TypeScript emits. */
  module: 'CommonJS' | 'ESM';
  http: 'Express' | 'Fastify';
}

// Any two rows share at most one value. Six rows are the minimum for three versions of Node.js.
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

/** The lowest versions that the peer ranges allow, all together. */
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
  /** Additional flags for npm. */
  flags: string[];
}

/** The packages of each combination of Nest and TypeORM. */
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
    // Like pnpm: a package can import only its declared dependencies.
    flags: nest === 12 && typeorm === '1' ? ['--install-strategy=linked'] : [],
  };
}
