/** The checks of the walkthrough, as they are made and as the table at its end. */

export interface Check {
  /** What must be true, in the words of the walkthrough. */
  readonly claim: string;
  readonly measured: string;
  readonly expected: string;
  readonly passed: boolean;
}

export class Report {
  readonly #checks: Check[] = [];
  readonly #print: (line: string) => void;

  constructor(print: (line: string) => void) {
    this.#print = print;
  }

  step(title: string, why: string): void {
    this.#print(`\n# ${title}\n  ${why}`);
  }

  detail(text: string): void {
    for (const line of text.trimEnd().split('\n')) this.#print(`  ${line}`);
  }

  check(check: Check): void {
    this.#checks.push(check);
    this.#print(`  ${check.passed ? 'ok  ' : 'FAIL'} ${check.claim}: ${check.measured} (expected ${check.expected})`);
  }

  /** A step that could not be carried out counts as a failed check. */
  failure(claim: string, reason: string): void {
    this.check({ claim, measured: reason, expected: 'no error', passed: false });
  }

  get failed(): number {
    return this.#checks.filter((check) => !check.passed).length;
  }

  table(): string {
    const rows = [
      ['', 'what', 'measured', 'expected'],
      ...this.#checks.map((c) => [c.passed ? 'ok' : 'FAIL', c.claim, c.measured, c.expected]),
    ];
    const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
    return rows
      .map((row) =>
        row
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd(),
      )
      .join('\n');
  }

  closingLine(): string {
    return `walkthrough: ${this.#checks.length - this.failed} checks passed, ${this.failed} failed`;
  }
}
