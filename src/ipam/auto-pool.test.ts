import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { applicationAffinity, applicationText, labelValue, type Application } from './application.ts';
import { autoPoolLabels, autoPoolName, autoPoolOf, hasApplicationAffinity, matchesApplication } from './auto-pool.ts';
import { parseAutoPoolRequest, poolSize } from './auto-pool-request.ts';

const web: Application = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  namespace: 'demo',
  name: 'Web',
  uid: '0d6d5e1c-7a0f-4f3e-9d0a-1234567890AB',
};
const eth0v4 = { interface: 'eth0', family: 4 } as const;

function poolOf(application: Application, name: string): SpiderIPPool {
  return {
    metadata: { name, labels: autoPoolLabels(application, eth0v4, true) },
    spec: { subnet: '10.6.0.0/16', podAffinity: { matchLabels: applicationAffinity(application) } },
  };
}

describe('pools of an application', () => {
  it('are named after application, interface and five characters of its UID', () => {
    assert.equal(autoPoolName(web, eth0v4), 'auto4-web-eth0-12345');
    assert.equal(autoPoolName(web, { interface: 'net1', family: 6 }), 'auto6-web-net1-12345');
    const long = autoPoolName({ ...web, name: 'a'.repeat(253) }, eth0v4);
    assert.equal(long.length, 253);
    assert.match(long, /^auto4-a+-eth0-12345$/);
  });

  it("name it in a subnet's status as users know it", () => {
    assert.equal(applicationText(web), 'apps_v1_Deployment_demo_Web');
    assert.equal(applicationText({ ...web, apiVersion: 'v1', kind: 'Pod' }), 'v1_Pod_demo_Web');
  });

  it('are found by the name of the application, and the one with its UID first', () => {
    const earlier = poolOf({ ...web, uid: 'other' }, 'a');
    assert.equal(autoPoolOf([earlier], web, eth0v4)?.metadata.name, 'a');
    assert.equal(autoPoolOf([earlier, poolOf(web, 'b')], web, eth0v4)?.metadata.name, 'b');
    assert.equal(autoPoolOf([earlier], { ...web, namespace: 'else' }, eth0v4), undefined);
    assert.equal(autoPoolOf([earlier], { ...web, kind: 'StatefulSet' }, eth0v4), undefined);
    assert.equal(autoPoolOf([earlier], web, { interface: 'net1', family: 4 }), undefined);
    assert.equal(autoPoolOf([earlier], web, { interface: 'eth0', family: 6 }), undefined);
    const going = { ...earlier, metadata: { ...earlier.metadata, deletionTimestamp: '2026-01-01T00:00:00Z' } };
    assert.equal(autoPoolOf([going], web, eth0v4), undefined);
  });

  it('serve the application that their affinity names, and no other', () => {
    const pool = poolOf(web, 'p');
    assert.equal(hasApplicationAffinity(pool), true);
    assert.equal(matchesApplication(pool, web), true);
    assert.equal(matchesApplication(pool, { ...web, name: 'db' }), false);
    assert.equal(matchesApplication(pool, { ...web, apiVersion: 'v1' }), false);
  });

  it('shorten a name that no label value can hold, differently for different names', () => {
    const [a, b] = [labelValue('x'.repeat(100)), labelValue(`${'x'.repeat(99)}y`)];
    assert.ok(a.length <= 63 && b.length <= 63);
    assert.notEqual(a, b);
    assert.equal(labelValue('short'), 'short');
  });
});

describe('annotations that ask for a pool of the application', () => {
  const subnet = 'ipam.spidernet.io/subnet';
  const subnets = 'ipam.spidernet.io/subnets';
  const number = 'ipam.spidernet.io/ippool-ip-number';

  it('are read in both forms; several interfaces win over one', () => {
    assert.equal(parseAutoPoolRequest({}, 1), undefined);
    const one = parseAutoPoolRequest({ [subnet]: '{"ipv4":["s4","unused"],"ipv6":["s6"]}' }, 1);
    assert.deepEqual(one, {
      slots: [
        { interface: 'eth0', family: 4, subnet: 's4' },
        { interface: 'eth0', family: 6, subnet: 's6' },
      ],
      size: { kind: 'flexible', extra: 1 },
      reclaim: true,
    });
    const two = parseAutoPoolRequest({ [subnet]: '{', [subnets]: '[{"ipv4":["a"]},{"ipv4":["b"]}]' }, 1);
    assert.deepEqual(
      two?.slots.map((slot) => `${slot.interface} ${slot.subnet}`),
      ['eth0 a', 'net1 b'],
    );
  });

  it('give a fixed size or one that follows the replicas', () => {
    const sized = (text: string) => parseAutoPoolRequest({ [subnet]: '{"ipv4":["s"]}', [number]: text }, 1)?.size;
    assert.deepEqual(sized('5'), { kind: 'fixed', count: 5 });
    assert.deepEqual(sized('+3'), { kind: 'flexible', extra: 3 });
    assert.equal(poolSize({ kind: 'fixed', count: 5 }, 9), 5);
    assert.equal(poolSize({ kind: 'flexible', extra: 3 }, 9), 12);
  });

  for (const [what, annotations, message] of [
    [
      'text that is no JSON',
      { [subnet]: 'x' },
      /wrong input, invalid format of Pod annotation 'ipam\.spidernet\.io\/subnet'/,
    ],
    ['no subnet', { [subnet]: '{}' }, /names no subnet/],
    ['an empty name', { [subnet]: '{"ipv4":[""]}' }, /names no subnet/],
    ['an empty list', { [subnets]: '[]' }, /value requires at least one item/],
    [
      'an interface twice',
      { [subnets]: '[{"interface":"eth0","ipv4":["a"]},{"interface":"eth0","ipv4":["b"]}]' },
      /duplicate interface eth0/,
    ],
    ['a negative number', { [subnet]: '{"ipv4":["a"]}', [number]: '-1' }, /neither a number/],
    ['two signs', { [subnet]: '{"ipv4":["a"]}', [number]: '++1' }, /neither a number/],
    [
      'an odd reclaim',
      { [subnet]: '{"ipv4":["a"]}', 'ipam.spidernet.io/ippool-reclaim': 'maybe' },
      /neither true nor false/,
    ],
  ] as const) {
    it(`are refused with ${what}`, () => {
      assert.throws(() => parseAutoPoolRequest(annotations, 1), message);
    });
  }
});
