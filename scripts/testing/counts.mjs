// What test runs add up to: {passed, failed, skipped, skips: [{name, file, reason}], failures: [{name, file}]}.
import { existsSync, readFileSync } from 'node:fs';
import { relative } from 'node:path';

export function noCounts() {
  return { passed: 0, failed: 0, skipped: 0, skips: [], failures: [] };
}

export function addCounts(total, counts) {
  for (const key of ['passed', 'failed', 'skipped']) total[key] += counts[key];
  total.skips.push(...counts.skips);
  total.failures.push(...counts.failures);
}

/** What the counting reporter wrote to `file`. A run that died before it wrote, or ended with an error that no test accounts for, is a failure. */
export function readCounts(file, kind, exitCode) {
  const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
  if (text === '') return oneResult(`the ${kind} tests ended with status ${exitCode} and no report`, false);
  const counts = JSON.parse(text);
  if (exitCode !== 0 && counts.failed === 0) {
    addCounts(counts, oneResult(`the ${kind} tests ended with status ${exitCode}`, false));
  }
  return counts;
}

/** One test or command that is passed or failed as a whole. */
export function oneResult(name, passed) {
  return {
    ...noCounts(),
    passed: passed ? 1 : 0,
    failed: passed ? 0 : 1,
    failures: passed ? [] : [{ name, file: '' }],
  };
}

export function summary({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

export function details(counts, root) {
  const where = (file) => (file ? ` (${relative(root, file)})` : '');
  return [
    ...counts.skips.map(({ name, file, reason }) => `skipped: ${name}${where(file)}: ${reason || 'no reason given'}`),
    ...counts.failures.map(({ name, file }) => `failed: ${name}${where(file)}`),
  ];
}
