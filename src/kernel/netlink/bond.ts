/** Options of a bond (include/uapi/linux/if_link.h, IFLA_BOND_*; Documentation/networking/bonding.rst). */
import { ipToBytes, type IpAddress } from '../../core/ip.ts';
import { MessageWriter } from './codec.ts';

/** Attribute and width in bytes of each option that is a number, by the name that bonding.rst gives it. */
const numbers = {
  active_slave: [2, 4],
  miimon: [3, 4],
  updelay: [4, 4],
  downdelay: [5, 4],
  use_carrier: [6, 1],
  arp_interval: [7, 4],
  arp_validate: [9, 4],
  arp_all_targets: [10, 4],
  primary: [11, 4],
  primary_reselect: [12, 1],
  fail_over_mac: [13, 1],
  xmit_hash_policy: [14, 1],
  resend_igmp: [15, 4],
  num_peer_notif: [16, 1],
  all_slaves_active: [17, 1],
  min_links: [18, 4],
  lp_interval: [19, 4],
  packets_per_slave: [20, 4],
  lacp_rate: [21, 1],
  ad_select: [22, 1],
  ad_actor_sys_prio: [24, 2],
  ad_user_port_key: [25, 2],
  tlb_dynamic_lb: [27, 1],
  peer_notif_delay: [28, 4],
} as const satisfies Record<string, readonly [attribute: number, width: 1 | 2 | 4]>;
export type BondNumber = keyof typeof numbers;

const IFLA_BOND_MODE = 1;
const IFLA_BOND_ARP_IP_TARGET = 8;
const IFLA_BOND_AD_ACTOR_SYSTEM = 26;

export interface BondOptions {
  /** 0 balance-rr to 6 balance-alb; undefined leaves it as it is. */
  readonly mode?: number;
  readonly numbers?: Readonly<Partial<Record<BondNumber, number>>>;
  /** Six bytes. */
  readonly actorSystem?: Uint8Array;
  readonly arpIpTargets?: readonly IpAddress[];
}

export function isBondNumber(name: string): name is BondNumber {
  return Object.hasOwn(numbers, name);
}

/** The link's info data. */
export function encodeBond(options: BondOptions): Uint8Array {
  const writer = new MessageWriter();
  if (options.mode !== undefined) writer.u8Attribute(IFLA_BOND_MODE, options.mode);
  for (const [name, value] of Object.entries(options.numbers ?? {})) {
    const [attribute, width] = numbers[name as BondNumber];
    if (width === 1) writer.u8Attribute(attribute, value);
    else if (width === 2) writer.u16Attribute(attribute, value);
    else writer.u32Attribute(attribute, value);
  }
  const { arpIpTargets = [], actorSystem } = options;
  if (arpIpTargets.length > 0)
    writer.nested(IFLA_BOND_ARP_IP_TARGET, (inner) =>
      arpIpTargets.forEach((target, index) => inner.attribute(index, ipToBytes(target))),
    );
  if (actorSystem !== undefined) writer.attribute(IFLA_BOND_AD_ACTOR_SYSTEM, actorSystem);
  return writer.finish();
}
