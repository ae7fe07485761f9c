import { readFileSync } from 'node:fs';

/** This package's version; 'unknown' if it was bundled into another package. */
export const PACKAGE_VERSION: string = (() => {
  try {
    const file = new URL('../../../package.json', import.meta.url);
    const { name, version } = JSON.parse(readFileSync(file, 'utf8')) as {
      name?: string;
      version?: string;
    };
    return name === 'nestjs-bildad' && version ? version : 'unknown';
  } catch {
    return 'unknown';
  }
})();
