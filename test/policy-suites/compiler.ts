/**
 * A world through the whole compiler, as the agent takes it: identities for every address, entries for a pod. The
 * compiler's modules are a parameter, so that the same can be done with a mutated copy of them.
 */

import type { Pod } from '../../src/api/kubernetes.ts';
import type { IpAddress } from '../../src/core/ip.ts';
import * as compile from '../../src/policy/compile.ts';
import * as identity from '../../src/policy/identity.ts';
import * as ipcache from '../../src/policy/ipcache.ts';
import type { World } from '../../src/policy/oracle.ts';
import * as policyIndex from '../../src/policy/policy-index.ts';
import { protocolNumber } from '../../src/policy/port.ts';
import * as ruleId from '../../src/policy/rule-id.ts';
import * as select from '../../src/policy/select.ts';
import { lookupIdentity, simulate } from '../../src/policy/simulate.ts';

export interface CompilerModules {
  readonly compile: Pick<typeof compile, 'compileEndpointPolicy' | 'endpointOfPod'>;
  readonly identity: Pick<typeof identity, 'IdentityAllocator'>;
  readonly ipcache: Pick<typeof ipcache, 'computeIpcache'>;
  readonly policyIndex: Pick<typeof policyIndex, 'PolicyIndex'>;
  readonly ruleId: Pick<typeof ruleId, 'RuleIds'>;
  readonly select: Pick<typeof select, 'IdentityView'>;
}

export const productCompiler: CompilerModules = { compile, identity, ipcache, policyIndex, ruleId, select };

export interface CompiledWorld {
  /** Prefix in canonical text → identity. */
  readonly ipcache: ReadonlyMap<string, identity.IdentityId>;
  readonly policyOf: (pod: Pod) => compile.EndpointPolicy;
}

export function compileWorld(world: World, modules: CompilerModules = productCompiler): CompiledWorld {
  const policies = new modules.policyIndex.PolicyIndex(world.policies);
  const allocator = new modules.identity.IdentityAllocator({ nowMs: () => 0 });
  const known = new Map<string, identity.IdentityId>();
  for (const [prefix, descriptor] of modules.ipcache.computeIpcache({ ...world, prefixes: policies.prefixes() })) {
    known.set(prefix, allocator.acquire(descriptor) as identity.IdentityId);
  }
  const view = new modules.select.IdentityView(allocator.entries());
  const ruleIds = new modules.ruleId.RuleIds();
  return {
    ipcache: known,
    policyOf: (pod) =>
      modules.compile.compileEndpointPolicy(modules.compile.endpointOfPod(pod), policies, view, ruleIds),
  };
}

export interface JudgedFlow {
  readonly direction: 'ingress' | 'egress';
  readonly peer: IpAddress;
  readonly protocol: string;
  readonly port: number;
}

/** The verdict of compiled entries, by the datapath's look-ups written in TypeScript. */
export function simulatedVerdict(
  { ipcache: known }: CompiledWorld,
  policy: compile.EndpointPolicy,
  { direction, peer, protocol, port }: JudgedFlow,
): 'allow' | 'deny' {
  const number = protocolNumber(protocol);
  return simulate(policy, {
    direction,
    identity: lookupIdentity(known, peer),
    protocol: number ?? 1,
    port: number === undefined ? 0 : port,
  }).verdict;
}
