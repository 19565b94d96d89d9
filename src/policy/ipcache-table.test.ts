/** The table kept piece by piece against computeIpcache, and the view against one made anew, after random changes. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Namespace, Node, Pod } from '../api/kubernetes.ts';
import { check } from '../core/property.ts';
import { descriptorKey, IdentityAllocator, type IdentityDescriptor, type IdentityId } from './identity.ts';
import { IpcacheTable, type OwnAddresses } from './ipcache-table.ts';
import { computeIpcache } from './ipcache.ts';
import type { PeerNode } from './node.ts';
import { PolicyIndex } from './policy-index.ts';
import { IdentityView } from './select.ts';
import { nodeName, world as anyWorld } from './world.ts';

type World = typeof anyWorld extends fc.Arbitrary<infer T> ? T : never;

/** What a table is told of, as it is now. */
class Scene {
  readonly table = new IpcacheTable(nodeName);
  readonly pods = new Map<string, Pod>();
  readonly nodes = new Map<string, Node>();
  readonly namespaces = new Map<string, Namespace>();
  prefixes: readonly string[] = [];
  own: readonly OwnAddresses[] = [];
  /** Made from what the table said had changed, and nothing else. */
  readonly mirror = new Map<string, string>();

  /** Towards the other world: a part of its objects, in any order. */
  approach(world: World, part: readonly boolean[]): void {
    let turn = 0;
    const chosen = (): boolean => part[turn++ % part.length] ?? true;
    replace(this.pods, world.pods, chosen, {
      set: (pod) => this.table.setPod(pod),
      remove: ({ metadata }) => this.table.deletePod(metadata?.namespace ?? '', metadata?.name ?? ''),
    });
    replace(this.nodes, world.nodes, chosen, {
      set: (node) => this.table.setNode(node),
      remove: ({ metadata }) => this.table.deleteNode(metadata?.name ?? ''),
    });
    replace(this.namespaces, world.namespaces, chosen, {
      set: (namespace) => this.table.setNamespace(namespace),
      remove: ({ metadata }) => this.table.deleteNamespace(metadata?.name ?? ''),
    });
    const before = this.prefixes;
    if (chosen()) this.prefixes = new PolicyIndex(world.policies).prefixes();
    const keepOthers = chosen();
    this.table.setPrefixes(this.prefixes, { keepOthers });
    if (keepOthers) this.prefixes = [...before, ...this.prefixes];
    if (chosen()) this.own = [...this.pods.values()].filter(chosen).map(ownOf);
    this.table.setOwnAddresses(this.own);
    for (const text of this.table.takeChanged()) {
      const descriptor = this.table.get(text);
      if (descriptor === undefined) this.mirror.delete(text);
      else this.mirror.set(text, descriptorKey(descriptor));
    }
  }

  expected(): Map<string, string> {
    const pods = [...this.pods.values()].map((pod) => withOwn(pod, this.own));
    const nodes = [...this.nodes.values()];
    const namespaces = [...this.namespaces.values()];
    const computed = computeIpcache({ pods, nodes, namespaces, nodeName, prefixes: this.prefixes });
    return new Map([...computed].map(([text, descriptor]) => [text, descriptorKey(descriptor)]));
  }
}

const steps = fc.array(fc.tuple(anyWorld, fc.array(fc.boolean(), { minLength: 3, maxLength: 9 })), {
  minLength: 2,
  maxLength: 6,
});

describe('the ipcache kept piece by piece', () => {
  it('is what computing all of it gives, after any changes', () => {
    let entries = 0;
    check(
      fc.property(steps, (list) => {
        const scene = new Scene();
        for (const [world, part] of list) {
          scene.approach(world, part);
          const expected = scene.expected();
          assert.deepEqual(sorted(scene.mirror), sorted(expected));
          assert.deepEqual([...scene.table.texts()].sort(), [...expected.keys()].sort());
          entries += expected.size;
        }
      }),
      { runs: 300 },
    );
    assert(entries > 1000, `only ${entries} entries were compared`);
  });

  it('gives equal pods one descriptor, and a changed namespace new ones', () => {
    const table = new IpcacheTable('n');
    const pod = (name: string, ip: string): Pod => ({
      metadata: { namespace: 'demo', name, uid: name, labels: { app: 'web' } },
      status: { podIP: ip },
    });
    table.setPod(pod('a', '10.0.0.1'));
    table.setPod(pod('b', '10.0.0.2'));
    const before = table.get('10.0.0.1/32');
    assert.equal(table.get('10.0.0.2/32'), before);
    table.takeChanged();
    table.setPod({ ...pod('a', '10.0.0.1') });
    assert.deepEqual(table.takeChanged(), [], 'nothing that policies look at has changed');
    table.setNamespace({ metadata: { name: 'demo', labels: { team: 'x' } } });
    assert.deepEqual(table.takeChanged().sort(), ['10.0.0.1/32', '10.0.0.2/32']);
    assert.notEqual(table.get('10.0.0.1/32'), before);
  });
});

describe('the view of identities kept piece by piece', () => {
  it('answers as one made anew', () => {
    check(
      fc.property(steps, (list) => {
        const view = new IdentityView();
        const allocator = new IdentityAllocator({
          nowMs: () => 0,
          onAdded: (id, descriptor) => view.add(id, descriptor),
          onRemoved: (id) => view.remove(id),
        });
        let held: IdentityId[] = [];
        for (const [world] of list) {
          const policies = new PolicyIndex(world.policies);
          const wanted = [...computeIpcache({ ...world, nodeName, prefixes: policies.prefixes() }).values()];
          const next = wanted.map((descriptor: IdentityDescriptor) => allocator.acquire(descriptor) as IdentityId);
          for (const id of held) allocator.release(id);
          held = next;
          const fresh = new IdentityView(allocator.entries());
          assert.deepEqual([view.hosts, view.pods], [fresh.hosts, fresh.pods]);
          for (const peer of peersOf(world, policies)) {
            assert.deepEqual(view.select(peer), fresh.select(peer), peer.key);
          }
        }
      }),
      { runs: 200 },
    );
  });

  it('gives the same array until the answer changes', () => {
    const pod = (namespace: string, app: string): IdentityDescriptor => ({
      ...{ kind: 'pod', namespace, labels: { app }, namespaceLabels: {}, namedPorts: [], prefixes: [] },
    });
    const [a, b, c] = [300, 301, 302] as IdentityId[] as [IdentityId, IdentityId, IdentityId];
    const view = new IdentityView([[a, pod('demo', 'web')]]);
    const policy = { podSelector: {}, ingress: [{ from: [{ podSelector: { matchLabels: { app: 'web' } } }] }] };
    const index = new PolicyIndex([{ metadata: { namespace: 'demo', name: 'p' }, spec: policy }]);
    const peer = index.get('demo', 'p')?.rules[0]?.peers?.[0];
    assert(peer !== undefined);
    const first = view.select(peer);
    assert.deepEqual(first, [a]);
    view.add(b, pod('other', 'web'));
    assert.equal(view.select(peer), first);
    view.add(c, pod('demo', 'web'));
    assert.deepEqual(view.select(peer), [a, c]);
    view.remove(a);
    assert.deepEqual(view.select(peer), [c]);
  });
});

function peersOf(world: World, policies: PolicyIndex): PeerNode[] {
  const namespaces = new Set(world.policies.map((policy) => policy.metadata?.namespace ?? ''));
  const nodes = [...namespaces].flatMap((namespace) => policies.inNamespace(namespace));
  return nodes.flatMap((policy) => policy.rules.flatMap((rule) => rule.peers ?? []));
}

function replace<T extends { readonly metadata?: { readonly namespace?: string; readonly name?: string } }>(
  kept: Map<string, T>,
  wanted: readonly T[],
  chosen: () => boolean,
  table: { readonly set: (object: T) => void; readonly remove: (object: T) => void },
): void {
  const keyOf = ({ metadata }: T): string => `${metadata?.namespace ?? ''}/${metadata?.name ?? ''}`;
  const names = new Set(wanted.map(keyOf));
  for (const [key, object] of [...kept]) {
    if (names.has(key) || !chosen()) continue;
    kept.delete(key);
    table.remove(object);
  }
  for (const object of wanted) {
    if (!chosen()) continue;
    kept.set(keyOf(object), object);
    table.set(object);
  }
}

function ownOf({ metadata }: Pod): OwnAddresses {
  const { namespace = '', name = '', uid = '' } = metadata ?? {};
  return { namespace, name, uid, ips: ['10.7.0.1', 'fd00:7::1'] };
}

/** As the agent's record says instead of the status. */
function withOwn(pod: Pod, own: readonly OwnAddresses[]): Pod {
  const { namespace = '', name = '', uid = '' } = pod.metadata ?? {};
  const found = own.find((one) => one.namespace === namespace && one.name === name && one.uid === uid);
  if (found === undefined) return pod;
  return { ...pod, status: { ...pod.status, podIP: undefined, podIPs: found.ips.map((ip) => ({ ip })) } };
}

function sorted(map: ReadonlyMap<string, string>): [string, string][] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : 1));
}
