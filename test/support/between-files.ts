/** What one file of specs must not leave to the next: all of them share a process. */
export const betweenFiles: (() => void)[] = [];
