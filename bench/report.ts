/** What every suite produces: rows for a person and for a file. */

/** One figure; `value` is the median of the rounds, `ratio` is value / baseline's value. */
export interface BenchRow {
  readonly suite: string;
  readonly case: string;
  readonly metric: string;
  readonly unit: string;
  readonly value: number;
  readonly min: number;
  readonly max: number;
  /** What `ratio` is against. */
  readonly baseline: string | null;
  readonly ratio: number | null;
}

export interface Suite {
  readonly name: string;
  readonly describe: string;
  /** Beside --quick and --json: flags as commander takes them, and what each is for. */
  readonly options?: readonly (readonly [flags: string, description: string, fallback?: string])[];
  run(options: RunOptions): Promise<BenchRow[] | Report>;
}

export interface Report {
  readonly rows: readonly BenchRow[];
  /** For a person, instead of a line for each row. */
  readonly text: string;
  /** What could not be measured. */
  readonly failures?: readonly string[];
}

export interface RunOptions {
  readonly quick: boolean;
  readonly log: (line: string) => void;
  /** Of the suite's own options. */
  readonly flags: Readonly<Record<string, string | undefined>>;
}

/** The p-th percentile (0 … 100) of the samples, by nearest rank. */
export function percentile(samples: readonly number[], p: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((p / 100) * sorted.length) - 1)] ?? Number.NaN;
}

/** Median, minimum and maximum of one figure over the rounds. */
export function spread(rounds: readonly number[]): { value: number; min: number; max: number } {
  return { value: percentile(rounds, 50), min: Math.min(...rounds), max: Math.max(...rounds) };
}

export function formatTable(rows: readonly BenchRow[]): string {
  const cells = [
    ['what', 'ours', 'beside it', 'ratio', 'spread'],
    ...rows.map((row) => [
      `${row.case}, ${row.metric}`,
      `${format(row.value)} ${row.unit}`,
      row.ratio === null ? '' : `${format(row.value / row.ratio)} ${row.unit} (${row.baseline ?? ''})`,
      row.ratio === null ? '' : row.ratio.toFixed(2),
      `${format(row.min)}–${format(row.max)}`,
    ]),
  ];
  return alignColumns(cells);
}

export function alignColumns(cells: readonly (readonly string[])[]): string {
  const widths = (cells[0] ?? []).map((_, column) => Math.max(...cells.map((line) => line[column]?.length ?? 0)));
  return cells
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function format(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
