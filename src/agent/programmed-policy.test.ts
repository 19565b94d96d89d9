/** What is known of how a policy changed must not change what is made of it. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { check } from '../core/property.ts';
import { distinctEntries, mergeEntries, type PolicyEntry } from '../policy/compile.ts';
import { EntryList } from '../policy/entry-list.ts';
import type { IdentityId } from '../policy/identity.ts';
import { changeOf, missingEntries, widened, type ProgrammedPolicy, type WantedPolicy } from './programmed-policy.ts';

const entryOf = (identities: readonly number[]): fc.Arbitrary<PolicyEntry> =>
  fc.record({
    direction: fc.constantFrom('ingress' as const, 'egress' as const),
    identity: fc.constantFrom(...identities).map((id) => id as IdentityId),
    protocol: fc.constant(6),
    port: fc.constantFrom(80, 443),
    portPrefixLen: fc.constant(16),
    ruleId: fc.constantFrom(1, 2),
    action: fc.constant('allow' as const),
  });
const modes = fc.record({
  isolated: fc.record({ ingress: fc.boolean(), egress: fc.boolean() }),
  audit: fc.boolean(),
});
const known = [0, 300, 301, 302];
const fresh = [400, 401];
const identities = (of: readonly number[]): fc.Arbitrary<ReadonlySet<IdentityId>> =>
  fc.subarray([...of]).map((ids) => new Set(ids as IdentityId[]));

/** A policy in force, and one that came from it: identities went and came, and sometimes the modes changed as well. */
const change = fc
  .record({
    current: fc.record({ modes, entries: fc.array(entryOf(known), { maxLength: 8 }) }),
    added: fc.array(entryOf(fresh), { maxLength: 3 }),
    gone: identities(known.slice(1)),
    newModes: fc.option(modes),
    created: identities(fresh),
  })
  .map(({ current, added, gone, newModes, created }) => {
    const from = EntryList.of(distinctEntries(current.entries));
    const kept = from.items.filter(({ identity }) => !gone.has(identity));
    const programmed: ProgrammedPolicy = { ...current.modes, entries: from };
    const wanted: WantedPolicy = {
      ...(newModes ?? current.modes),
      entries: EntryList.of(distinctEntries([...kept, ...added])),
      change: { from, gone, added: distinctEntries(added) },
    };
    return { current: programmed, wanted, created };
  });

describe('a policy in force and the one that is wanted', () => {
  it('lacks the same, and is widened to the same, whether or not it is known what changed', () => {
    const property = fc.property(change, ({ current, wanted, created }) => {
      const extra = missingEntries(current, wanted, created);
      assert.deepEqual(extra, missingEntries(current, { ...wanted, change: undefined }, created));
      assert.deepEqual(widened(current, extra, wanted).items, mergeEntries(current.entries.items, extra));
    });
    check(property, { runs: 1000 });
  });

  it('changed by its entries alone only where the modes are the same', () => {
    const property = fc.property(change, ({ current, wanted }) => {
      const same =
        current.audit === wanted.audit &&
        current.isolated.ingress === wanted.isolated.ingress &&
        current.isolated.egress === wanted.isolated.egress;
      assert.equal(changeOf(current, wanted), same ? wanted.change : undefined);
      assert.equal(changeOf({ ...current, entries: EntryList.of(current.entries.items) }, wanted), undefined);
    });
    check(property, { runs: 300 });
  });
});
