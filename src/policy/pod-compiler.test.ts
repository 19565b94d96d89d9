/** What is compiled piece by piece against what is compiled as a whole. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Pod } from '../api/kubernetes.ts';
import { check } from '../core/property.ts';
import { compileEndpointPolicy, distinctEntries, endpointOfPod, type PolicyEntry } from './compile.ts';
import { IdentityAllocator, type IdentityDescriptor, type IdentityId } from './identity.ts';
import { computeIpcache } from './ipcache.ts';
import { type CompiledPolicy, PodPolicyCompiler, type PolicyChange } from './pod-compiler.ts';
import { PolicyIndex } from './policy-index.ts';
import { RuleIds } from './rule-id.ts';
import { IdentityView } from './select.ts';
import { world as anyWorld } from './world.ts';

/** Drawn numbers stand for descriptors and policies: those of them that the world has. */
const step = fc.record({
  identities: fc.array(fc.nat(30), { maxLength: 4 }),
  policy: fc.option(fc.nat(5)),
  /** Whether the result is looked at: a list of entries is written out then. */
  looked: fc.boolean(),
});
const lastStep = { identities: [], policy: null, looked: true };

describe('PodPolicyCompiler', () => {
  it('gives what compileEndpointPolicy gives, as identities and policies come and go', () => {
    let [changed, amended] = [0, 0];
    const property = fc.property(anyWorld, fc.array(step, { minLength: 3, maxLength: 10 }), (world, steps) => {
      const all = new PolicyIndex(world.policies);
      const descriptors = [...computeIpcache({ ...world, prefixes: all.prefixes() }).values()];
      const present = new Map<IdentityDescriptor, IdentityId>();
      const view = new IdentityView();
      const allocator = new IdentityAllocator({
        nowMs: () => 0,
        onAdded: (id, descriptor) => view.add(id, descriptor),
        onRemoved: (id) => view.remove(id),
      });
      const index = new PolicyIndex(world.policies);
      const ruleIds = new RuleIds();
      const compilers = new Map(world.pods.map((pod) => [pod, new PodPolicyCompiler(ruleIds)]));
      const before = new Map<Pod, CompiledPolicy>();
      for (const { identities, policy, looked } of [...steps, lastStep]) {
        for (const number of identities) toggle(descriptors[number], present, allocator);
        const { metadata } = (policy !== null && world.policies[policy]) || {};
        const one = world.policies.find((candidate) => candidate.metadata === metadata);
        if (one !== undefined && index.get(metadata?.namespace ?? '', metadata?.name ?? '') === undefined)
          index.set(one);
        else index.delete(metadata?.namespace ?? '', metadata?.name ?? '');
        for (const [pod, compiler] of compilers) {
          const whole = compileEndpointPolicy(endpointOfPod(pod), index, view, ruleIds);
          const policiesHere = index.inNamespace(pod.metadata?.namespace ?? '');
          const compiled = compiler.compile(pod, policiesHere, view);
          const { change, entries, ...policy } = compiled;
          assert.equal(entries.length, whole.entries.length);
          if (looked) assert.deepEqual({ ...policy, entries: entries.items }, whole);
          assert.equal(compiler.compile(pod, policiesHere, view), compiled);
          const earlier = before.get(pod);
          if (earlier !== undefined && earlier !== compiled) changed++;
          if (change !== undefined && earlier !== compiled) {
            amended++;
            assert.equal(change.from, earlier?.entries);
            if (looked) assert.deepEqual(distinctEntries(appliedTo(change)), whole.entries);
          }
          before.set(pod, compiled);
        }
      }
    });
    check(property, { runs: 300 });
    assert.ok(changed > 500, `only ${changed} policies changed`);
    assert.ok(amended > 100, `only ${amended} policies were amended`);
  });
});

function appliedTo({ from, gone, added }: PolicyChange): PolicyEntry[] {
  const kept = from.items.filter(({ identity }) => !gone.has(identity));
  const newcomers = new Set(added.map(({ identity }) => identity));
  assert.ok(!from.items.some(({ identity }) => newcomers.has(identity)));
  return [...kept, ...added];
}

function toggle(
  descriptor: IdentityDescriptor | undefined,
  present: Map<IdentityDescriptor, IdentityId>,
  allocator: IdentityAllocator,
): void {
  if (descriptor === undefined) return;
  const id = present.get(descriptor);
  if (id !== undefined) {
    present.delete(descriptor);
    allocator.release(id);
    return;
  }
  present.set(descriptor, allocator.acquire(descriptor) as IdentityId);
}
