/** What is decided about a node's sysctls; that they are set is in node-sysctls.kernel.test.ts. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { silentLogger } from '../core/log.ts';
import { nodeSysctls, tuneNode } from './node-sysctls.ts';

const thresh4 = 'net.ipv4.neigh.default.gc_thresh3';
const thresh6 = 'net.ipv6.neigh.default.gc_thresh3';
const rpFilter = 'net.ipv4.conf.all.rp_filter';

describe('sysctls of a node', () => {
  it('raise the neighbour limit, and never lower it', () => {
    const { values, log } = tuned({ [thresh4]: '65536', [thresh6]: '1024' });
    assert.deepEqual(values, { [thresh4]: '65536', [thresh6]: '28160' });
    assert.ok(log.some((line) => line.includes(`info tuneSysctlConfig: ${thresh6} is 28160 now, was 1024`)));
    assert.ok(!log.some((line) => line.includes(`${thresh4} is`)), log.join('\n'));
  });

  it('of a family that is off stay as they are', () => {
    const before = { [thresh4]: '1024', [thresh6]: '1024', 'net.ipv6.conf.all.forwarding': '0', [rpFilter]: '1' };
    assert.deepEqual(tuned(before, [4]).values, { ...before, [thresh4]: '28160', [rpFilter]: '0' });
    assert.deepEqual(tuned({ [rpFilter]: '1', [thresh4]: '1' }, [6]).values, { [rpFilter]: '0', [thresh4]: '1' });
  });

  it('that change more than themselves say so', () => {
    const key = 'net.ipv6.conf.all.forwarding';
    assert.ok(tuned({ [key]: '0' }).log.some((line) => /^warn .*accept_ra=1.*set it to 2/.test(line)));
    assert.ok(!tuned({ [key]: '1' }).log.some((line) => line.startsWith('warn')), 'nothing changed');
  });

  it('that cannot be set are a warning with the remedy, and the others are set', () => {
    const { values, log } = tuned({ [thresh4]: '1', [rpFilter]: '1' }, [4, 6], thresh4);
    assert.deepEqual(values, { [thresh4]: '1', [rpFilter]: '0' });
    const warning = log.find((line) => line.startsWith('warn')) ?? '';
    assert.match(
      warning,
      /cannot set net\.ipv4\.neigh\.default\.gc_thresh3.*sysctl -w .*=28160.*tuneSysctlConfig: false/,
    );
  });

  it('are all in docs/reference/configuration.md, with their values', () => {
    const text = readFileSync(new URL('../../docs/reference/configuration.md', import.meta.url), 'utf8');
    for (const { key, value } of nodeSysctls) assert.ok(text.includes(`| \`${key}\` | ${value} |`), key);
  });
});

function tuned(
  before: Readonly<Record<string, string>>,
  families: readonly (4 | 6)[] = [4, 6],
  refused?: string,
): { readonly values: Readonly<Record<string, string>>; readonly log: readonly string[] } {
  const values = { ...before };
  const log: string[] = [];
  const line =
    (level: string) =>
    (_: object, message: string): void =>
      void log.push(`${level} ${message}`);
  const write = (key: string, value: string): boolean => {
    if (key === refused) throw new Error('EROFS: read-only file system');
    values[key] = value;
    return true;
  };
  tuneNode({ read: (key) => values[key], write }, families, {
    ...silentLogger,
    info: line('info'),
    warn: line('warn'),
  });
  return { values, log };
}
