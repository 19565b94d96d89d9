/** Packed entries against plain lists. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { check } from '../core/property.ts';
import { policyKey, policyValue } from './abi.ts';
import { LiveImage } from './live-image.ts';
import {
  decodeImage,
  encodePolicy,
  entryCount,
  imageOf,
  type PolicyEntry,
  type PolicyImage,
  sameImage,
} from './policy-image.ts';

const policyId = 5;
const entry: fc.Arbitrary<PolicyEntry> = fc
  .record({
    direction: fc.constantFrom('ingress' as const, 'egress' as const),
    identity: fc.constantFrom(0, 2, 300, 301, 0xff_ffff),
    protocol: fc.constantFrom(0, 6, 17),
    port: fc.constantFrom(80, 443, 0x8000),
    portPrefixLen: fc.constantFrom(0, 1, 12, 16),
    ruleId: fc.integer({ min: 1, max: 3 }),
    action: fc.constant('allow' as const),
  })
  .map(({ portPrefixLen, port, protocol, ...rest }) => {
    const length = protocol === 0 ? 0 : portPrefixLen;
    return { ...rest, protocol, port: port & (0xffff << (16 - length)) & 0xffff, portPrefixLen: length };
  });
const entries = fc.uniqueArray(entry, { maxLength: 30, selector: matches });
const identities = fc.uniqueArray(fc.constantFrom(0, 2, 300, 301)).map((ids) => new Set<number>(ids));

function matches({ direction, identity, protocol, port, portPrefixLen }: PolicyEntry): string {
  return [direction, identity, protocol, port, portPrefixLen].join(' ');
}

function texts(image: PolicyImage): string[] {
  return decodeImage(image).map((found) => JSON.stringify([matches(found), found.ruleId]));
}

function textsOf(list: readonly PolicyEntry[]): string[] {
  return list.map((found) => JSON.stringify([matches(found), found.ruleId])).sort();
}

describe('the image of a policy', () => {
  it('is the same for the same entries in any order, and tells what was encoded', () => {
    const inTwoOrders = entries.chain((list) =>
      fc.tuple(fc.constant(list), fc.shuffledSubarray(list, { minLength: list.length })),
    );
    const property = fc.property(inTwoOrders, ([list, shuffled]) => {
      const image = encodePolicy(policyId, list);
      assert.deepEqual(texts(image).sort(), textsOf(list));
      const other = encodePolicy(policyId, shuffled);
      assert.equal(sameImage(image, other), true);
      const rows = Array.from({ length: entryCount(image) }, (_, i): [Uint8Array, Uint8Array] => [
        image.keys.subarray(i * policyKey.size, (i + 1) * policyKey.size),
        image.values.subarray(i * policyValue.size, (i + 1) * policyValue.size),
      ]);
      assert.equal(sameImage(imageOf(rows.toReversed()), image), true);
      for (const [i] of list.entries())
        assert.equal(sameImage(image, encodePolicy(policyId, list.toSpliced(i, 1))), false);
    });
    check(property, { runs: 300 });
  });

  it('names the first of two rules that match the same', () => {
    const first: PolicyEntry = {
      direction: 'ingress',
      identity: 300,
      protocol: 6,
      port: 80,
      portPrefixLen: 16,
      ruleId: 9,
      action: 'allow',
    };
    assert.deepEqual(decodeImage(encodePolicy(policyId, [first, { ...first, ruleId: 1 }])), [first]);
  });

  it('takes identities in and out, again and again, as a list does', () => {
    const step = fc.record({ add: entries, forget: identities });
    const property = fc.property(entries, fc.array(step, { maxLength: 6 }), (list, steps) => {
      const live = new LiveImage(encodePolicy(policyId, list));
      let expected = list;
      for (const { add, forget } of steps) {
        const known = new Set(expected.map(matches));
        const lacked = live.lackedOf(encodePolicy(policyId, add));
        assert.deepEqual(texts(lacked).sort(), textsOf(add.filter((item) => !known.has(matches(item)))));
        const isForgotten = ({ identity }: PolicyEntry): boolean => forget.has(identity);
        assert.deepEqual(texts(live.of(forget)).sort(), textsOf(expected.filter(isForgotten)));
        live.remove(forget);
        assert.deepEqual(texts(live.image).sort(), textsOf(expected.filter((item) => !isForgotten(item))));
        const added = live.lackedOf(encodePolicy(policyId, add));
        live.add(added);
        const kept = expected.filter((item) => !isForgotten(item));
        const present = new Set(kept.map(matches));
        expected = [...kept, ...add.filter((item) => !present.has(matches(item)))];
        assert.equal(live.count, entryCount(live.image));
        assert.equal(sameImage(live.image, encodePolicy(policyId, expected)), true);
      }
    });
    check(property, { runs: 300 });
  });
});
