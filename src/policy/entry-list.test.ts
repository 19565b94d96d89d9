import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { check } from '../core/property.ts';
import { distinctEntries, type PolicyEntry } from './compile.ts';
import { EntryList } from './entry-list.ts';
import type { IdentityId } from './identity.ts';

const directions = ['ingress', 'egress'] as const;

function entry(identity: IdentityId, kind: number): PolicyEntry {
  const direction = directions[kind % 2] ?? 'ingress';
  return { direction, identity, protocol: 6, port: 80 + (kind >> 1), portPrefixLen: 16, ruleId: 1, action: 'allow' };
}

const identity = fc.nat(40).map((id) => id as IdentityId);
const entries = fc.array(fc.tuple(identity, fc.nat(5)), { maxLength: 40 });
const step = fc.record({
  gone: fc.array(identity, { maxLength: 4 }),
  added: fc.array(fc.tuple(identity, fc.nat(5)), { maxLength: 6 }),
  read: fc.boolean(),
});

const sorted = (drawn: readonly (readonly [IdentityId, number])[]): PolicyEntry[] =>
  distinctEntries(drawn.map(([id, kind]) => entry(id, kind)));

describe('a list of entries', () => {
  it('is what its changes make of it, whoever reads it in between', () => {
    const property = fc.property(entries, fc.array(step, { maxLength: 30 }), (first, steps) => {
      let expected: readonly PolicyEntry[] = sorted(first);
      const lists = [EntryList.of(expected)];
      const all = [expected];
      for (const { gone, added, read } of steps) {
        const kept = expected.filter((one) => !gone.includes(one.identity));
        const newcomers = sorted(added).filter((one) => !kept.some((other) => other.identity === one.identity));
        expected = distinctEntries([...kept, ...newcomers]);
        const list = (lists.at(-1) ?? assert.fail()).changed(new Set(gone), newcomers);
        assert.equal(list.length, expected.length);
        if (read) assert.deepEqual(list.items, expected);
        lists.push(list);
        all.push(expected);
      }
      for (const [i, list] of lists.entries()) {
        assert.equal(list.equals(EntryList.of(expected)), same(all[i] ?? [], expected));
        assert.deepEqual(list.items, all[i]);
        assert.equal(list.items, list.items);
      }
    });
    check(property, { runs: 500 });
  });

  it('of the same length is another one where an entry names another rule', () => {
    const one = entry(1 as IdentityId, 0);
    assert.ok(!EntryList.of([one]).equals(EntryList.of([{ ...one, ruleId: 2 }])));
    assert.ok(EntryList.of([one]).equals(EntryList.of([{ ...one }])));
  });
});

function same(a: readonly PolicyEntry[], b: readonly PolicyEntry[]): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
