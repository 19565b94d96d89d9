import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { it } from 'node:test';
import { kubeLimits } from './limits.ts';

it('docs/reference/limits.md has every limit of the API client', () => {
  const page = readFileSync(new URL('../../docs/reference/limits.md', import.meta.url), 'utf8');
  for (const [name, value] of Object.entries(kubeLimits)) {
    assert.match(page, new RegExp(`^\\| \`${name}\` +\\| ${value} +\\|`, 'm'));
  }
});
