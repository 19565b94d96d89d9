import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { check } from '../core/property.ts';
import {
  descriptorKey,
  firstAllocatedIdentity,
  hostIdentity,
  IdentityAllocator,
  lastAllocatedIdentity,
  nodeIdentity,
  worldIdentity,
  type IdentityDescriptor,
  type IdentityId,
} from './identity.ts';

const pod = (app: string): IdentityDescriptor => ({
  kind: 'pod',
  namespace: 'demo',
  labels: { app },
  namespaceLabels: {},
  prefixes: [],
});

describe('descriptorKey', () => {
  it('does not see order, and sees everything else', () => {
    const one: IdentityDescriptor = {
      kind: 'pod',
      namespace: 'a',
      labels: { x: '1', y: '2' },
      namespaceLabels: { n: '1' },
      namedPorts: [
        { name: 'a', protocol: 6, port: 1 },
        { name: 'b', protocol: 6, port: 2 },
      ],
      prefixes: ['::/0', '10.0.0.0/8'],
    };
    const same: IdentityDescriptor = {
      prefixes: ['10.0.0.0/8', '::/0'],
      namedPorts: [...(one.namedPorts ?? [])].reverse(),
      namespaceLabels: { n: '1' },
      labels: { y: '2', x: '1' },
      namespace: 'a',
      kind: 'pod',
    };
    assert.equal(descriptorKey(one), descriptorKey(same));
    const others: IdentityDescriptor[] = [
      { ...one, kind: 'host' },
      { ...one, namespace: 'b' },
      { ...one, labels: { x: '1' } },
      { ...one, namespaceLabels: {} },
      { ...one, namedPorts: [] },
      { ...one, prefixes: [] },
    ];
    assert.equal(new Set([one, ...others].map(descriptorKey)).size, 7);
  });
});

describe('IdentityAllocator', () => {
  it('knows the reserved classes', () => {
    const allocator = new IdentityAllocator({ nowMs: () => 0 });
    assert.equal(allocator.acquire({ kind: 'host', prefixes: [] }), hostIdentity);
    assert.equal(allocator.acquire({ kind: 'world', prefixes: [] }), worldIdentity);
    assert.equal(allocator.acquire({ kind: 'node', prefixes: [] }), nodeIdentity);
    assert.equal(allocator.acquire({ kind: 'host', prefixes: ['10.0.0.0/8'] }), firstAllocatedIdentity);
  });

  it('keeps a reserved class however often it is released', () => {
    const allocator = new IdentityAllocator({ nowMs: () => 0 });
    allocator.acquire({ kind: 'world', prefixes: [] });
    allocator.release(worldIdentity);
    assert.equal(allocator.get(worldIdentity)?.kind, 'world');
  });

  it('against a multiset: one number per class in use, counted, never two classes with one number', () => {
    const steps = fc.array(fc.tuple(fc.boolean(), fc.constantFrom('a', 'b', 'c', 'd')), { maxLength: 60 });
    check(
      fc.property(steps, (list) => {
        const allocator = new IdentityAllocator({ nowMs: () => 0 });
        const held = new Map<string, IdentityId[]>();
        const retired = new Set<IdentityId>();
        for (const [take, app] of list) {
          const ids = held.get(app) ?? [];
          if (take) {
            const id = allocator.acquire(pod(app)) as IdentityId;
            assert.ok(!retired.has(id), 'a number came back at once');
            held.set(app, [...ids, id]);
          } else if (ids.length > 0) {
            const id = ids.pop() as IdentityId;
            allocator.release(id);
            if (ids.length === 0) retired.add(id);
          }
        }
        const inUse = [...held].filter(([, ids]) => ids.length > 0);
        for (const [app, ids] of inUse) {
          assert.equal(new Set(ids).size, 1);
          assert.deepEqual(allocator.get(ids[0] as IdentityId)?.labels, { app });
        }
        assert.equal(allocator.size, inUse.length + 3);
      }),
    );
  });

  it('changes its revision exactly when the set changes', () => {
    const allocator = new IdentityAllocator({ nowMs: () => 0 });
    const revisions = [allocator.revision];
    const step = (act: () => unknown): void => {
      act();
      revisions.push(allocator.revision);
    };
    const id = allocator.acquire(pod('a')) as IdentityId;
    step(() => undefined);
    step(() => allocator.acquire(pod('a')));
    step(() => allocator.release(id));
    step(() => allocator.release(id));
    assert.deepEqual(
      revisions.map((revision) => revision - (revisions[0] ?? 0)),
      [0, 1, 1, 1, 2],
    );
  });
});

it('docs/reference/limits.md has the last identity', () => {
  const page = readFileSync(new URL('../../docs/reference/limits.md', import.meta.url), 'utf8');
  assert.match(page, new RegExp(`^\\| \`lastAllocatedIdentity\` +\\| ${lastAllocatedIdentity} +\\|`, 'm'));
});
