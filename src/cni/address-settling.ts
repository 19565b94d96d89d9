/**
 * An IPv6 address is tentative for one to two seconds after it was set (RFC 4862 §5.4: a random delay of up to a second, and
 * one more for an answer): what a pod sends meanwhile has another source, or none. Main plugins wait for it only where
 * there is a gateway (containernetworking/plugins, ConfigureIface), so the last one of a chain does for the others.
 * Where the agent has asked the link itself, the kernel need not: nobody waits.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { cniErrorCodes } from '../api/cni.ts';
import { formatErrorChain } from '../core/error.ts';
import { formatIp, type IpAddress } from '../core/ip.ts';
import type { Logger } from '../core/log.ts';
import type { InterfaceAddress } from '../kernel/netlink/address.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { writeSysctl } from '../kernel/sysctl.ts';
import { CniError } from './error.ts';

/** As long as main plugins wait. Detection that takes longer has lost its link: the pod starts all the same. */
const settleLimitMs = 5_000;
const pollMs = 25;

export interface SettlingPlace {
  readonly netns: string;
  readonly interfaceName: string;
}

/** Resolves when the interface's addresses can be used; at once for IPv4. Rejects when somebody else has one. */
export async function settleAddresses(
  { netns, interfaceName }: SettlingPlace,
  addresses: readonly IpAddress[],
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  const awaited = new Set(addresses.filter(({ family }) => family === 6).map(formatIp));
  if (awaited.size === 0) return;
  using pod = RtNetlink.open(netns);
  const deadlineMs = performance.now() + settleLimitMs;
  for (;;) {
    // Each time: the pod may end meanwhile, and without a carrier the kernel does not begin.
    const link = pod.linkByName(interfaceName);
    if (link?.carrier !== true) return;
    const present = pod.addresses(link.ifindex).filter(({ address }) => awaited.has(formatIp(address)));
    const duplicate = present.find(({ dadFailed }) => dadFailed);
    if (duplicate !== undefined) throw duplicateAddress(interfaceName, duplicate);
    const [first] = present.filter(({ tentative }) => tentative);
    if (first === undefined) return;
    if (performance.now() > deadlineMs) {
      const waited = { netns, interface: interfaceName, address: formatIp(first.address) };
      return log.warn(waited, `duplicate address detection has not ended after ${settleLimitMs} ms; ADD goes on`);
    }
    await sleep(pollMs, undefined, { signal });
  }
}

/**
 * Only for who asks the link itself before the address is set, and before that sets the interface up: its link-local address would
 * be asked about from then on, and the main plugin waits for that too.
 * The interface alone: `all` is 0 unless somebody wants detection everywhere (Linux 4.15), and then it stays.
 */
export function leaveOutDetection({ netns, interfaceName }: SettlingPlace, log: Logger): void {
  try {
    writeSysctl(netns, `net/ipv6/conf/${interfaceName}/accept_dad`, '0');
  } catch (error) {
    log.warn(
      { netns, interface: interfaceName, error: formatErrorChain(error) },
      'the kernel asks again, and ADD waits',
    );
  }
}

function duplicateAddress(interfaceName: string, { address }: InterfaceAddress): CniError {
  const ip = formatIp(address);
  return new CniError(
    cniErrorCodes.tryAgainLater,
    `${interfaceName}: somebody else on the link has ${ip} (duplicate address detection failed)`,
    `find who has ${ip}, and exclude it from the pool (spec.excludeIPs); with enableIPConflictDetection another address is taken`,
  );
}
