import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { check } from '../core/property.ts';
import type { NetworkPolicy } from '../api/kubernetes.ts';
import { PolicyIndex } from './policy-index.ts';

const namespaces = ['a', 'b', 'c'];
const cidrs = ['10.0.0.0/8', '10.1.0.0/16', '10.2.0.0/16', '192.0.2.0/24'];

const step = fc.record({
  namespace: fc.constantFrom(...namespaces),
  name: fc.constantFrom('p', 'q'),
  blocks: fc.option(fc.subarray(cidrs)),
  asked: fc.subarray(namespaces),
});

function policyOf(namespace: string, name: string, blocks: readonly string[]): NetworkPolicy {
  const from = blocks.map((cidr) => ({ ipBlock: { cidr } }));
  return { metadata: { namespace, name, uid: `${namespace}-${name}` }, spec: { podSelector: {}, ingress: [{ from }] } };
}

describe('the prefixes that policies name', () => {
  it('are those of the namespaces asked for, as policies come and go; the same array while nothing changes', () => {
    const property = fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
      const index = new PolicyIndex();
      const policies = new Map<string, { readonly namespace: string; readonly blocks: readonly string[] }>();
      for (const { namespace, name, blocks, asked } of steps) {
        const key = `${namespace}/${name}`;
        if (blocks === null) policies.delete(key);
        else policies.set(key, { namespace, blocks });
        if (blocks === null) index.delete(namespace, name);
        else index.set(policyOf(namespace, name, blocks));
        const expected = [...policies.values()]
          .filter((one) => asked.includes(one.namespace))
          .flatMap((one) => one.blocks);
        const prefixes = index.prefixes(asked);
        assert.equal(prefixes.length, new Set(prefixes).size);
        assert.deepEqual(new Set(prefixes), new Set(expected));
        assert.equal(index.prefixes(asked), prefixes);
      }
    });
    check(property, { runs: 300 });
  });
});
