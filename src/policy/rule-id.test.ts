import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RuleIds, type RuleRef } from './rule-id.ts';

const rule = (uid: string, ruleIndex = 0, direction: RuleRef['direction'] = 'ingress'): RuleRef => ({
  uid,
  namespace: 'demo',
  name: `name-${uid}`,
  direction,
  ruleIndex,
});

describe('RuleIds', () => {
  it('gives the same number in every run', () => {
    // Recorded: events stored under these numbers must still be readable after an upgrade.
    assert.equal(new RuleIds().idOf(rule('6d1f9a3e-0000-4000-8000-000000000001')), 668703552);
  });

  it('tells direction, index and policy apart, and finds the rule again', () => {
    const ids = new RuleIds();
    const rules = ['a', 'b'].flatMap((uid) =>
      [0, 1].flatMap((index) => [rule(uid, index), rule(uid, index, 'egress')]),
    );
    assert.equal(new Set(rules.map((one) => ids.idOf(one))).size, 8);
    for (const one of rules) assert.deepEqual(ids.lookup(ids.idOf(one)), one);
  });

  it('has no duplicates and no reserved numbers among 200,000 rules, where hashes collide', () => {
    const ids = new RuleIds();
    const seen = new Set<number>();
    for (let i = 0; i < 100_000; i++) for (const index of [0, 1]) seen.add(ids.idOf(rule(`policy-${i}`, index)));
    assert.equal(seen.size, 200_000);
    for (const id of seen) assert.ok(id >= 256 && id <= 0xffff_ffff);
  });

  it('forgets a policy', () => {
    const ids = new RuleIds();
    const [gone, kept] = [ids.idOf(rule('a')), ids.idOf(rule('b'))];
    ids.forgetPolicy('a');
    assert.equal(ids.lookup(gone), undefined);
    assert.deepEqual(ids.lookup(kept), rule('b'));
    assert.equal(ids.size, 1);
  });
});
