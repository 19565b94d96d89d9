// A node:test reporter that only counts: one JSON object {passed, failed, skipped, skips: [{name, file, reason}], failures: [...]}.
export default async function* countReporter(source) {
  const total = { passed: 0, failed: 0, skipped: 0, skips: [], failures: [] };
  for await (const event of source) {
    if (event.type !== 'test:pass' && event.type !== 'test:fail') continue;
    const { name, file, details, skip, todo } = event.data;
    if (details?.type === 'suite' && event.type === 'test:pass' && skip === undefined) continue;
    if (skip !== undefined && skip !== false) {
      total.skipped++;
      total.skips.push({ name, file, reason: typeof skip === 'string' ? skip : '' });
    } else if (event.type === 'test:fail' && !todo) {
      if (details?.error?.failureType === 'subtestsFailed') continue; // its subtests are counted already
      total.failed++;
      total.failures.push({ name: name === file ? 'the file crashed or took too long' : name, file });
    } else if (name === file) {
      // The runner reports a file under its own name when no test in it was: it exited before any ran.
      total.failed++;
      total.failures.push({ name: 'no test in it ran', file });
    } else {
      total.passed++;
    }
  }
  yield `${JSON.stringify(total)}\n`;
}
