/** Stretches of time: sorted, and none touches another. */
export type Window = readonly [from: number, to: number];

export function union(windows: readonly Window[]): Window[] {
  const merged: [number, number][] = [];
  for (const [from, to] of windows.toSorted((a, b) => a[0] - b[0])) {
    const last = merged.at(-1);
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else if (to > from) merged.push([from, to]);
  }
  return merged;
}

/** When all of them are. */
export function common(many: readonly (readonly Window[])[]): Window[] {
  const [first, ...rest] = many;
  let all = union(first ?? []);
  for (const windows of rest)
    all = all.flatMap(([from, to]) =>
      union(windows)
        .map(([a, b]): Window => [Math.max(a, from), Math.min(b, to)])
        .filter(([a, b]) => b > a),
    );
  return all;
}

/** How much of a stretch they cover. */
export function covered([from, to]: Window, windows: readonly Window[]): number {
  return union(windows).reduce(
    (sum, [a, b]) => sum + Math.max(0, Math.min(b, to) - Math.max(a, from)),
    0,
  );
}

export const touches = ([from, to]: Window, windows: readonly Window[]) =>
  windows.some(([a, b]) => a <= to && b >= from);
