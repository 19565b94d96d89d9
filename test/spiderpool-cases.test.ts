/** docs/reference/spiderpool-cases.md says which test has which case: what it says is so, and it leaves nothing out. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';

const root = new URL('../', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8');

interface Row {
  readonly case: string;
  readonly test: string;
  readonly file: string;
}

const rows: readonly Row[] = read('docs/reference/spiderpool-cases.md')
  .split('\n')
  .flatMap((line) => {
    const [, id, test, file] = /^\| (.+?) +\| (.+?) +\| (.+?) +\|$/.exec(line) ?? [];
    return id === undefined || test === undefined || file === undefined || /^(case|complaint|-+)$/.test(id)
      ? []
      : [{ case: id, test, file }];
  });
const isTested = ({ file }: Row): boolean => file !== 'not yet' && file !== 'out of scope';

/** Groups of the catalogue and their last numbers; M00018 never was. */
const catalogue = { D: 17, E: 10, A: 18, L: 9, M: 40, C: 23, V: 11, N: 6, G: 12, S: 4, R: 7 } as const;
const caseIds = Object.entries(catalogue)
  .flatMap(([letter, last]) => Array.from({ length: last }, (_, n) => `${letter}${String(n + 1).padStart(5, '0')}`))
  .filter((id) => id !== 'M00018');

/** As a literal of the file, or as caseOf's two arguments. */
function names(text: string, test: string): boolean {
  const [, id, what = ''] = /^([A-Z]\d{5}) (.*)$/.exec(test) ?? [];
  const isLiteral = ["'", '"', '`'].some((quote) => text.includes(quote + test + quote));
  return (
    isLiteral || (id !== undefined && text.split(`'${id}',`).some((part) => part.trimStart().startsWith(`'${what}'`)))
  );
}

describe('the page of Spiderpool’s cases', () => {
  it('has a row for each case of the catalogue', () => {
    const described = new Set(rows.map((row) => row.case));
    assert.deepEqual(
      caseIds.filter((id) => !described.has(id)),
      [],
    );
  });

  it('names tests that are in the files it names', () => {
    const wrong = rows.filter(isTested).filter(({ file, test }) => {
      return !/^(src|test)\/\S+\.ts$/.test(file) || !existsSync(new URL(file, root)) || !names(read(file), test);
    });
    assert.deepEqual(wrong, []);
  });

  it('has every test of test/cases', () => {
    const files = readdirSync(new URL('test/cases', root)).map((name) => `test/cases/${name}`);
    const written = files.flatMap((file) =>
      [...read(file).matchAll(/'([A-Z]\d{5})',\s*'/g)].map(([, id]) => `${id ?? ''} ${file}`),
    );
    const described = new Set(rows.map((row) => `${row.test.slice(0, 6)} ${row.file}`));
    assert.ok(written.length > 90, `only ${written.length} found`);
    assert.deepEqual(
      written.filter((test) => !described.has(test)),
      [],
    );
  });
});
