/** Cleanups that run after each spec file, because spec files share a process. */
export const fileResets: (() => void)[] = [];
