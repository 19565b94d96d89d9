/** Which part an interface plays for its pod, from the mode and the links that are there. Pure. */
import { cniErrorCodes } from '../api/cni.ts';
import type { IpFamily } from '../core/ip.ts';
import type { Link } from '../kernel/netlink/link.ts';
import type { Rule } from '../kernel/netlink/rule.ts';
import type { CoordinatorConfig } from './coordinator-config.ts';
import { coordinatorTables } from './coordinator-plan.ts';
import { CniError } from './error.ts';

export const podVethName = 'veth0';

export interface Role {
  /** underlay: the node is reached by veth0, overlay: by the default network's own interface. */
  readonly mode: 'underlay' | 'overlay';
  /** The first interface of the pod that is coordinated. */
  readonly isFirst: boolean;
  /** The pod's interface that leads to the node. */
  readonly door: string;
}

/** `mode` must not be disabled. Throws CniError 7 when the mode and the pod's interfaces do not go together. */
export function decideRole(config: CoordinatorConfig, ifName: string, podLinks: readonly Link[]): Role {
  const isDefault = ifName === config.podDefaultCniNic;
  const hasVeth = podLinks.some(({ name }) => name === podVethName);
  const mode = config.mode === 'auto' ? (isDefault || hasVeth ? 'underlay' : 'overlay') : config.mode;
  if (mode === 'overlay') {
    if (isDefault) throw misfit(ifName, 'overlay mode is for interfaces beside the default network');
    if (hasVeth) throw misfit(ifName, `overlay mode, but ${podVethName} of underlay mode is in the pod`);
    return { mode, isFirst: isFirstOverlay(config, ifName, podLinks), door: config.podDefaultCniNic };
  }
  if (!isDefault && !hasVeth) {
    const what =
      `when creating interface ${ifName} in underlay mode, it detects that the auxiliary interface ${podVethName} ` +
      'was not created by previous interface';
    throw misfit(ifName, what);
  }
  return { mode: 'underlay', isFirst: isDefault, door: podVethName };
}

function isFirstOverlay(config: CoordinatorConfig, ifName: string, podLinks: readonly Link[]): boolean {
  // Fallback tunnels are down, shaping devices are ifb: neither is an interface of the pod.
  const others = podLinks.filter(({ name, kind, up }) => up && name !== 'lo' && kind !== 'ifb');
  return others.every(({ name }) => name === ifName || name === config.podDefaultCniNic);
}

function misfit(ifName: string, what: string): CniError {
  return new CniError(
    cniErrorCodes.invalidNetworkConfig,
    `coordinator of ${ifName}: ${what}`,
    'set spec.coordinator.mode of the SpiderMultusConfig to auto, or give all networks of the pod the same mode',
  );
}

/**
 * The routing table of an interface beside the first: 101 for net1, 102 for net2, … The one that a rule gives its addresses
 * already, else the first that no rule uses.
 */
export function tableOf(addresses: readonly string[], rules: readonly SourceRule[]): number {
  const taken = rules.filter(({ table }) => table >= coordinatorTables.pod);
  const own = taken.find(({ from }) => addresses.includes(from));
  if (own !== undefined) return own.table;
  let table: number = coordinatorTables.pod;
  while (taken.some((rule) => rule.table === table)) table++;
  return table;
}

export interface SourceRule {
  /** Address, without prefix length. */
  readonly from: string;
  readonly table: number;
}

/** What the kernel itself gives a rule without a priority: one before the first that is there (fib_default_rule_pref). */
export function nextPriority(rules: readonly Rule[], family: IpFamily): number {
  const priorities = rules.filter((rule) => rule.family === family && rule.priority > 0).map((rule) => rule.priority);
  return Math.max(Math.min(...priorities, 32_766) - 1, 1);
}
