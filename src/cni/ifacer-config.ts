/** The `ifacer` plugin's configuration object: the keys of Spiderpool's plugin. */
import { z } from 'zod';
import { cniErrorCodes, type PluginConfig } from '../api/cni.ts';
import { interfaceNamePattern } from '../core/interface-name.ts';
import { parseIp } from '../core/ip.ts';
import { isBondNumber, type BondNumber, type BondOptions } from '../kernel/netlink/bond.ts';
import { parseMac } from '../kernel/netlink/link.ts';
import { CniError } from './error.ts';

export interface IfacerConfig {
  readonly interfaces: readonly string[];
  /** 0: no VLAN. */
  readonly vlanId: number;
  readonly bond: BondConfig | undefined;
}

export interface BondConfig {
  readonly name: string;
  readonly options: BondOptions;
  /** Options that are names of interfaces. */
  readonly byName: Readonly<Partial<Record<'primary' | 'active_slave', string>>>;
  /** Options that nobody knows; they have no effect. */
  readonly unknown: readonly string[];
}

const defaultBondName = 'sp_bond0';
const schema = z.looseObject({
  interfaces: z.array(z.string().regex(interfaceNamePattern, 'is not an interface name')).nullish(),
  vlanID: z.number().int().nullish(),
  bond: z
    .looseObject({
      name: z.string().nullish(),
      mode: z.number().int().min(0).max(6),
      options: z.string().nullish(),
    })
    .nullish(),
});

/** Throws CniError 7 that names key and value. */
export function parseIfacerConfig(config: PluginConfig): IfacerConfig {
  const parsed = schema.safeParse(config);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw invalid(`${(issue?.path ?? []).map(String).join('.')}: ${issue?.message ?? 'malformed'}`);
  }
  const { interfaces, vlanID, bond } = parsed.data;
  const names = interfaces ?? [];
  const vlanId = vlanID ?? 0;
  if (names.length === 0) throw invalid('interfaces have at least one interface');
  if (vlanId < 0 || vlanId > 4094) throw invalid(`invalid vlan tag ${vlanId}: vlan tag must be in range [0,4094]`);
  if (names.length === 1) return { interfaces: names, vlanId, bond: undefined };
  if (bond === undefined || bond === null) throw invalid('several interfaces need a bond');
  return { interfaces: names, vlanId, bond: parseBond(bond.name || defaultBondName, bond.mode, bond.options ?? '') };
}

function parseBond(name: string, mode: number, text: string): BondConfig {
  if (!interfaceNamePattern.test(name)) throw invalid(`bond.name: "${name}" is not an interface name`);
  const numbers: Partial<Record<BondNumber, number>> = {};
  const byName: Partial<Record<'primary' | 'active_slave', string>> = {};
  const unknown: string[] = [];
  const others: { actorSystem?: Uint8Array; arpIpTargets?: NonNullable<BondOptions['arpIpTargets']> } = {};
  for (const pair of text
    .split(';')
    .map((each) => each.trim())
    .filter(Boolean)) {
    const [key = '', value = ''] = pair.split('=').map((each) => each.trim());
    if (key === 'primary' || key === 'active_slave') byName[key] = value;
    else if (key === 'ad_actor_system') others.actorSystem = actorSystem(value);
    else if (key === 'arp_ip_target') others.arpIpTargets = arpTargets(value);
    else setNumber(numbers, unknown, key, value);
  }
  return { name, options: { mode, numbers, ...others }, byName, unknown };
}

/** Spiderpool spells this one differently from the kernel. */
const aliases: Readonly<Record<string, BondNumber>> = { up_delay: 'updelay', num_grat_arp: 'num_peer_notif' };

/** 0 is not set: it is the kernel's default, or not allowed in every mode. */
function setNumber(into: Partial<Record<BondNumber, number>>, unknown: string[], key: string, value: string): void {
  const name = aliases[key] ?? key;
  if (!isBondNumber(name)) {
    unknown.push(key);
    return;
  }
  if (!/^[0-9]{1,9}$/.test(value)) throw invalid(`bond.options: ${key}: "${value}" is not a number`);
  if (Number(value) !== 0) into[name] = Number(value);
}

function actorSystem(value: string): Uint8Array {
  try {
    return parseMac(value);
  } catch {
    throw invalid(`bond.options: ad_actor_system: "${value}" is not a MAC address`);
  }
}

function arpTargets(value: string): NonNullable<BondOptions['arpIpTargets']> {
  return value
    .replace(/^\[|\]$/g, '')
    .split(',')
    .map((text) => {
      const ip = parseIp(text.trim());
      if (ip?.family === 4) return ip;
      throw invalid(`bond.options: arp_ip_target: "${text}" is not an IPv4 address`);
    });
}

function invalid(what: string): CniError {
  return new CniError(
    cniErrorCodes.invalidNetworkConfig,
    `invalid config: ${what}`,
    'correct master, vlanID or bond in the SpiderMultusConfig',
  );
}
