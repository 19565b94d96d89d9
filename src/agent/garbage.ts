/**
 * Collects what a run left behind, as soon as nobody waits for it. The agent's young generation is small (bin/sluice): left alone
 * it is full in the middle of some later run, together with all that this one still needs. Does nothing where node was not
 * started with --expose-gc. docs/decisions/0010-what-a-policy-change-costs.md has the figures.
 */
export function collectYoungGarbage(): void {
  const { gc } = globalThis;
  if (gc !== undefined) setImmediate(() => gc({ type: 'minor' }));
}
