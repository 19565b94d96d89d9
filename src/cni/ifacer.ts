/**
 * The `ifacer` plugin, first in its chain: makes the VLAN or bond on the node that the main plugin's `master` names. What is
 * there already is checked and set up; nothing is ever removed, because other pods use it. Each call is one synchronous
 * piece, so that pods that start at once find each other's work; what another program makes meanwhile is checked too.
 */
import { cniErrorCodes, type CniRequest, type CniResult, type PluginHandler } from '../api/cni.ts';
import type { Logger } from '../core/log.ts';
import { Errno, isErrno } from '../kernel/errno.ts';
import type { Link } from '../kernel/netlink/link.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { CniError } from './error.ts';
import { parseIfacerConfig, type BondConfig, type IfacerConfig } from './ifacer-config.ts';

export interface IfacerDeps {
  readonly log: Logger;
}

export function createIfacerPlugin({ log }: IfacerDeps): PluginHandler {
  return async (request) => (request.command === 'ADD' ? add(request, log) : undefined);
}

function add(request: CniRequest, log: Logger): CniResult {
  const config = parseIfacerConfig(request.config);
  using host = RtNetlink.open();
  ensureInterfaces(host, config, log);
  return { cniVersion: request.config.cniVersion, interfaces: [], ips: [], routes: [], dns: {} };
}

function ensureInterfaces(host: RtNetlink, { interfaces, vlanId, bond }: IfacerConfig, log: Logger): void {
  if (bond !== undefined) {
    if (bond.unknown.length > 0) log.warn({ bond: bond.name, options: bond.unknown }, 'unknown bond options ignored');
    const link = ensureBond(host, bond, interfaces);
    if (vlanId !== 0) ensureVlan(host, link, vlanId);
  } else if (vlanId !== 0) {
    ensureVlan(host, mustParent(host, interfaces[0] ?? ''), vlanId);
  }
}

function mustParent(host: RtNetlink, name: string): Link {
  const link = host.linkByName(name);
  if (link !== undefined) return link;
  throw misfit(`interface ${name} does not exist on the node`, 'name an interface of the node as master');
}

function ensureVlan(host: RtNetlink, parent: Link, vlanId: number): void {
  host.setLink(parent.ifindex, { up: true });
  const name = `${parent.name}.${vlanId}`;
  if (name.length > 15)
    throw misfit(`${name} is too long for an interface's name`, 'take a bond or parent interface with a shorter name');
  const other = host.links().find((link) => link.vlanId === vlanId && link.name !== name);
  if (other !== undefined) {
    const what = `cannot have multiple different vlan interfaces with the same vlanId ${vlanId}: ${other.name} has it`;
    throw misfit(what, `use ${other.name}, or remove it from the node`);
  }
  const link = madeOrFound(host, name, () =>
    host.addLink({ kind: 'vlan', name, parentIfindex: parent.ifindex, vlanId }),
  );
  if (link.kind !== 'vlan' || link.vlanId !== vlanId || link.parentIfindex !== parent.ifindex) {
    const what = `an interface named ${name} exists on the node and is not VLAN ${vlanId} of ${parent.name}`;
    throw misfit(what, `remove or rename ${name}`);
  }
  host.setLink(link.ifindex, { up: true });
}

function ensureBond(host: RtNetlink, bond: BondConfig, slaves: readonly string[]): Link {
  const parts = slaves.map((name) => mustParent(host, name));
  const { name, options, byName } = bond;
  let isNew = false;
  const link = madeOrFound(host, name, () => {
    host.addLink({ kind: 'bond', name, options });
    isNew = true;
  });
  if (link.kind !== 'bond')
    throw misfit(`a non-bond type interface named ${name} already exists on the host`, `take another bond.name`);
  for (const slave of parts) enslave(host, slave, link);
  host.setLink(link.ifindex, { up: true });
  // They name slaves, which must be in the bond first.
  if (isNew) {
    const chosen = Object.entries(byName).map(([key, slave]) => [key, mustParent(host, slave).ifindex] as const);
    if (chosen.length > 0) host.changeBond(link.ifindex, { numbers: Object.fromEntries(chosen) });
  }
  return link;
}

function enslave(host: RtNetlink, slave: Link, bond: Link): void {
  if (slave.masterIfindex === bond.ifindex) {
    if (!slave.up) host.setLink(slave.ifindex, { up: true });
    return;
  }
  if (slave.masterIfindex !== undefined && slave.masterIfindex !== 0) {
    const master = host.linkByIndex(slave.masterIfindex)?.name ?? `ifindex ${slave.masterIfindex}`;
    throw misfit(`${slave.name} belongs to ${master}, not to ${bond.name}`, `take it out of ${master}`);
  }
  host.setLink(slave.ifindex, { up: false });
  host.setLink(slave.ifindex, { masterIfindex: bond.ifindex });
  host.setLink(slave.ifindex, { up: true });
}

/** Somebody else may make it between the look and the attempt. */
function madeOrFound(host: RtNetlink, name: string, make: () => void): Link {
  const found = host.linkByName(name);
  if (found !== undefined) return found;
  try {
    make();
  } catch (error) {
    if (!isErrno(error, Errno.EEXIST)) throw error;
  }
  return host.mustLink(name);
}

function misfit(what: string, remedy: string): CniError {
  return new CniError(cniErrorCodes.invalidNetworkConfig, `ifacer: ${what}`, remedy);
}
