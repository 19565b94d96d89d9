import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { errorCodes, formatErrorChain, hasErrorCode, SluiceError } from './error.ts';

describe('SluiceError', () => {
  const low = new Error('EPERM');
  const high = new SluiceError({
    code: 'syscall_failed',
    operation: 'attach tcx ingress',
    object: 'eth0',
    what: 'bpf(2) failed',
    remedy: 'run as root',
    cause: low,
  });

  it('says operation, object and what went wrong', () => {
    assert.equal(high.message, 'attach tcx ingress eth0: bpf(2) failed');
    assert.equal(high.cause, low);
  });

  it('prints the chain once, and the remedy last', () => {
    assert.equal(formatErrorChain(high), 'attach tcx ingress eth0: bpf(2) failed: EPERM (run as root)');
  });

  it('is found by code anywhere in a chain', () => {
    const outer = new Error('start agent', { cause: high });
    assert.ok(hasErrorCode(outer, 'syscall_failed'));
    assert.ok(!hasErrorCode(outer, 'timeout'));
    assert.equal(formatErrorChain(outer), 'start agent: attach tcx ingress eth0: bpf(2) failed: EPERM (run as root)');
  });

  it('survives what is not an error, and a loop', () => {
    assert.equal(formatErrorChain('text'), 'text');
    assert.equal(formatErrorChain({ a: 1 }), '{"a":1}');
    assert.equal(
      formatErrorChain(new AggregateError([new Error('v6 refused'), new Error('v4 refused')])),
      'v6 refused; v4 refused',
    );
    const loop: Error & { cause?: unknown } = new Error('a');
    loop.cause = new Error('b', { cause: loop });
    assert.equal(formatErrorChain(loop), 'a: b');
  });
});

describe('docs/reference/errors.md', () => {
  const page = readFileSync(new URL('../../docs/reference/errors.md', import.meta.url), 'utf8');
  const documented = [...page.matchAll(/^\| `([a-z0-9_]+)` \| (.+) \|$/gm)].map(([, code, meaning]) => [code, meaning]);

  it('lists exactly the codes of the table, with their meanings', () => {
    assert.deepEqual(
      documented.sort(),
      Object.entries(errorCodes)
        .map(([code, meaning]) => [code, meaning])
        .sort(),
    );
  });
});
