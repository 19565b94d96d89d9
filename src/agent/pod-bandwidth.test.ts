import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatErrorChain, SluiceError } from '../core/error.ts';
import { mergeBandwidth, podBandwidth, runtimeBandwidth } from './pod-bandwidth.ts';

function read(annotations: Record<string, string>) {
  return podBandwidth({ namespace: 'demo', name: 'web', annotations });
}

describe('bandwidth annotations', () => {
  const good: [string, number][] = [
    ['100M', 100_000_000],
    ['10Mi', 10_485_760],
    ['1k', 1_000],
    ['1P', 1e15],
    ['1e6', 1_000_000],
    ['1000500m', 1_001],
    ['2.5M', 2_500_000],
  ];
  for (const [text, bps] of good) {
    it(`reads ${text} as ${bps} bit/s in either direction`, () => {
      assert.deepEqual(read({ 'kubernetes.io/ingress-bandwidth': text }), { ingressBps: bps, egressBps: undefined });
      assert.deepEqual(read({ 'kubernetes.io/egress-bandwidth': text }), { ingressBps: undefined, egressBps: bps });
    });
  }

  const bad: [string, string][] = [
    ['', 'is not a quantity'],
    ['fast', 'is not a quantity'],
    ['100 M', 'is not a quantity'],
    ['100K', 'is not a quantity'],
    ['999', 'resource is unreasonably small (< 1kbit)'],
    ['0', 'resource is unreasonably small (< 1kbit)'],
    ['-5M', 'resource is unreasonably small (< 1kbit)'],
    ['1001T', 'resource is unreasonably large (> 1Pbit)'],
    ['1E', 'resource is unreasonably large (> 1Pbit)'],
  ];
  for (const [text, problem] of bad) {
    it(`refuses ${JSON.stringify(text)}: ${problem}`, () => {
      assert.throws(
        () => read({ 'kubernetes.io/egress-bandwidth': text }),
        (error) => {
          assert(error instanceof SluiceError);
          assert.equal(error.code, 'invalid_resource');
          const shown = formatErrorChain(error);
          for (const part of [
            'pod demo/web',
            'metadata.annotations[kubernetes.io/egress-bandwidth]',
            problem,
            '100M',
          ]) {
            assert(shown.includes(part), `${shown} says ${part}`);
          }
          return true;
        },
      );
    });
  }

  it('prefers the annotation, direction by direction, and never takes a burst', () => {
    const runtime = runtimeBandwidth({ ingressRate: 5, ingressBurst: 4_294_967_295, egressRate: 0, egressBurst: 9 });
    assert.deepEqual(runtime, { ingressBps: 5, egressBps: undefined });
    assert.deepEqual(mergeBandwidth({ egressBps: 7 }, runtime), { ingressBps: 5, egressBps: 7 });
    assert.deepEqual(mergeBandwidth({ ingressBps: 6 }, runtime), { ingressBps: 6, egressBps: undefined });
    assert.deepEqual(runtimeBandwidth(undefined), { ingressBps: undefined, egressBps: undefined });
  });
});
