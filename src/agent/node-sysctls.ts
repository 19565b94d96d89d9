/**
 * `tuneSysctlConfig`: what Spiderpool's agent sets on a node at its start. Only where the configuration says so, since it
 * loosens the whole node: docs/reference/configuration.md, which a test compares with the table here.
 */
import { formatErrorChain } from '../core/error.ts';
import type { IpFamily } from '../core/ip.ts';
import type { Logger } from '../core/log.ts';
import { type NetnsRef } from '../kernel/netns.ts';
import { readSysctl, writeSysctl } from '../kernel/sysctl.ts';

export interface NodeSysctl {
  readonly key: string;
  readonly value: number;
  /** Set when one of them is enabled. */
  readonly families: readonly IpFamily[];
  /** A limit: one that is higher already stays. */
  readonly isMinimum?: boolean;
  /** What else the change does to the node; logged with it. */
  readonly sideEffect?: string;
}

export const nodeSysctls: readonly NodeSysctl[] = [
  { key: 'net.ipv4.neigh.default.gc_thresh3', value: 28_160, families: [4], isMinimum: true },
  { key: 'net.ipv6.neigh.default.gc_thresh3', value: 28_160, families: [6], isMinimum: true },
  { key: 'net.ipv4.conf.all.arp_notify', value: 1, families: [4] },
  { key: 'net.ipv4.conf.all.forwarding', value: 1, families: [4] },
  {
    ...{ key: 'net.ipv6.conf.all.forwarding', value: 1, families: [6] },
    // Documentation/networking/ip-sysctl, accept_ra: 1 accepts router advertisements only while forwarding is off.
    sideEffect:
      'interfaces with accept_ra=1 take no router advertisements any more; set it to 2 where the node needs them',
  },
  // IPv4's check, but upstream sets it for IPv6 alone too.
  { key: 'net.ipv4.conf.all.rp_filter', value: 0, families: [4, 6] },
];

/** Those of one namespace; as {@link readSysctl} and {@link writeSysctl}. */
export interface Sysctls {
  read(key: string): string | undefined;
  write(key: string, value: string): boolean;
}

export function sysctlsOf(netns: NetnsRef): Sysctls {
  return { read: (key) => readSysctl(netns, key), write: (key, value) => writeSysctl(netns, key, value) };
}

/** Never throws: a node that is tuned in part still serves its pods. */
export function tuneNode(sysctls: Sysctls, families: readonly IpFamily[], log: Logger): void {
  for (const setting of nodeSysctls)
    if (setting.families.some((family) => families.includes(family))) tune(sysctls, setting, log);
}

function tune(sysctls: Sysctls, { key, value, isMinimum, sideEffect }: NodeSysctl, log: Logger): void {
  try {
    const before = sysctls.read(key);
    // The neighbour limits are the initial namespace's alone; IPv6 may be off.
    if (before === undefined) return log.info({ sysctl: key }, `tuneSysctlConfig: there is no ${key} here; left out`);
    const isReached = isMinimum === true ? Number(before) >= value : Number(before) === value;
    if (isReached) return;
    sysctls.write(key, String(value));
    const change = { sysctl: key, before, after: String(value) };
    log.info(change, `tuneSysctlConfig: ${key} is ${value} now, was ${before}`);
    if (sideEffect !== undefined) log.warn(change, `tuneSysctlConfig: ${key}=${value}: ${sideEffect}`);
  } catch (error) {
    const remedy = `set it on the node (sysctl -w ${key}=${value}), give the agent a writable /proc/sys, or set tuneSysctlConfig: false`;
    log.warn({ sysctl: key, error: formatErrorChain(error) }, `tuneSysctlConfig: cannot set ${key}; ${remedy}`);
  }
}
