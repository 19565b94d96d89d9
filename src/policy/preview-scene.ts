/** A cluster before and after a change of its policies: groups of pods, what addresses mean, what entries let through. */

import type { EnforcementMode, FlowChange, ObjectName, PreviewAnswer } from '../api/agent-api.ts';
import type { Namespace, NetworkPolicy, Node, Pod } from '../api/kubernetes.ts';
import { compileEndpointPolicy, endpointOfPod, type EndpointPolicy } from './compile.ts';
import { formatDiagnostic } from './diagnostics.ts';
import { IdentityAllocator, type IdentityId } from './identity.ts';
import { computeIpcache } from './ipcache.ts';
import { allowedPorts } from './judge.ts';
import type { Direction, PolicyNode } from './node.ts';
import { PolicyIndex } from './policy-index.ts';
import type { PortSet } from './port-set.ts';
import { groupPods, type PodGroup } from './preview-group.ts';
import type { Flow } from './preview-merge.ts';
import { RuleIds } from './rule-id.ts';
import { IdentityView } from './select.ts';

export interface PreviewWorld {
  readonly pods: readonly Pod[];
  readonly namespaces: readonly Namespace[];
  readonly nodes: readonly Node[];
  readonly policies: readonly NetworkPolicy[];
  readonly enforcement: EnforcementMode;
}

/** Policies without a namespace are in "default". */
export interface PolicyChange {
  readonly apply: readonly NetworkPolicy[];
  readonly remove: readonly ObjectName[];
}

/** The world before and after, compiled as far as somebody asks. */
export class Scene {
  readonly groups: readonly PodGroup[];
  readonly affected: readonly PodGroup[];
  readonly ipcache = new Map<string, IdentityId>();
  readonly nodes: readonly Node[];
  /** ipBlock prefixes that policies of the changed namespaces name, before or after. */
  readonly prefixes: readonly string[];
  readonly policyChanges: PreviewAnswer['policies'];
  readonly diagnostics: readonly string[];
  /** Namespaces of changed policies. */
  readonly #touched: ReadonlySet<string>;
  readonly #before: PolicyIndex;
  readonly #after: PolicyIndex;
  readonly #enforcement: EnforcementMode;
  readonly #view: IdentityView;
  readonly #ruleIds = new RuleIds();
  readonly #compiled = new Map<PodGroup, { readonly before: Reach; readonly after: Reach }>();

  constructor(world: PreviewWorld, change: PolicyChange) {
    const apply = change.apply.map(withNamespace);
    this.nodes = world.nodes;
    this.#enforcement = world.enforcement;
    this.#before = new PolicyIndex(world.policies);
    this.#after = new PolicyIndex(world.policies);
    for (const policy of apply) this.#after.set(policy);
    for (const { namespace, name } of change.remove) this.#after.delete(namespace, name);
    const touched = [...apply.map(nameOf), ...change.remove];
    const namespaces = new Set(touched.map(({ namespace }) => namespace));
    this.#touched = namespaces;
    this.policyChanges = touched.map((name) => ({ ...name, change: this.#changeOf(name) }));
    this.diagnostics = apply.flatMap((policy) => {
      const { namespace, name } = nameOf(policy);
      return (this.#after.get(namespace, name)?.diagnostics ?? []).map(formatDiagnostic);
    });
    this.prefixes = [...new Set([...this.#before.prefixes(namespaces), ...this.#after.prefixes(namespaces)])];
    const allocator = new IdentityAllocator({ nowMs: () => 0 });
    // Without a node of its own: whose node a node is depends on the pod, and is looked at there.
    const all = [...new Set([...this.#before.prefixes(), ...this.#after.prefixes()])];
    for (const [prefix, descriptor] of computeIpcache({ ...world, nodeName: '', prefixes: all }))
      this.ipcache.set(prefix, allocator.acquire(descriptor) as IdentityId);
    this.#view = new IdentityView(allocator.entries());
    this.groups = groupPods(world.pods, this.ipcache);
    this.affected = this.groups.filter(({ namespace }) => namespaces.has(namespace));
  }

  reach(group: PodGroup): { readonly before: Reach; readonly after: Reach } {
    const known = this.#compiled.get(group);
    if (known !== undefined) return known;
    const before = this.#reach(group, this.#before);
    const after = this.#touched.has(group.namespace) ? this.#reach(group, this.#after) : before;
    this.#compiled.set(group, { before, after });
    return { before, after };
  }

  #reach(group: PodGroup, policies: PolicyIndex): Reach {
    const endpoint = endpointOfPod(group.sample);
    return new Reach(compileEndpointPolicy(endpoint, policies, this.#view, this.#ruleIds, this.#enforcement));
  }

  #changeOf({ namespace, name }: ObjectName): 'create' | 'update' | 'delete' | 'none' {
    const [before, after] = [this.#before.get(namespace, name), this.#after.get(namespace, name)];
    if (before === undefined) return after === undefined ? 'none' : 'create';
    if (after === undefined) return 'delete';
    return meaningOf(before) === meaningOf(after) ? 'none' : 'update';
  }
}

/** What one endpoint's entries let through, by peer; each answer is kept. */
export class Reach {
  readonly isolated: EndpointPolicy['isolated'];
  readonly #policy: EndpointPolicy;
  readonly #known = new Map<string, PortSet>();

  constructor(policy: EndpointPolicy) {
    this.#policy = policy;
    this.isolated = policy.isolated;
  }

  ports(direction: Direction, identity: IdentityId): PortSet {
    const key = `${direction} ${identity}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const ports = allowedPorts(this.#policy, direction, identity);
    this.#known.set(key, ports);
    return ports;
  }
}

/** What the sides gain and lose. */
export function flowsOf(before: PortSet, after: PortSet, sides: Pick<FlowChange, 'from' | 'to' | 'family'>): Flow[] {
  const [gained, lost] = [after.minus(before), before.minus(after)];
  return [
    ...(lost.isEmpty ? [] : [{ ...sides, change: 'deny' as const, ports: lost.toString() }]),
    ...(gained.isEmpty ? [] : [{ ...sides, change: 'allow' as const, ports: gained.toString() }]),
  ];
}

function meaningOf({ subject, isolates, rules, diagnostics }: PolicyNode): string {
  return JSON.stringify([subject, isolates, rules, diagnostics.map(({ field }) => field)]);
}

function withNamespace(policy: NetworkPolicy): NetworkPolicy {
  return { ...policy, metadata: { ...policy.metadata, namespace: policy.metadata?.namespace ?? 'default' } };
}

function nameOf(policy: NetworkPolicy): ObjectName {
  return { namespace: policy.metadata?.namespace ?? 'default', name: policy.metadata?.name ?? '' };
}
