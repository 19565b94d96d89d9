import { z } from 'zod';
import { spiderLabels } from '../api/spider.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import type { SpiderSubnet } from '../api/spidersubnet.ts';
import { SluiceError } from '../core/error.ts';
import { formatIpRange, rangeSize, subtractRanges, type IpRange } from '../core/ip-range.ts';
import { formatPrefix, parsePrefix } from '../core/ip.ts';
import { compareText } from '../core/labels.ts';
import { mergedAddresses } from './pool-addresses.ts';

/** Which pools a subnet has, what is left of it, and its status.controlledIPPools. */

/** The subnet that governs the pool: the one of the same CIDR. One that is going governs until it is gone. */
export function subnetOfPool(pool: SpiderIPPool, subnets: readonly SpiderSubnet[]): SpiderSubnet | undefined {
  const own = canonical(pool.spec.subnet);
  return own === undefined ? undefined : subnets.find(({ spec }) => canonical(spec.subnet) === own);
}

export function poolsOfSubnet(subnet: SpiderSubnet, pools: readonly SpiderIPPool[]): SpiderIPPool[] {
  const own = canonical(subnet.spec.subnet);
  return own === undefined ? [] : pools.filter(({ spec }) => canonical(spec.subnet) === own);
}

/** The addresses of the subnet that no pool has, merged. */
export function freeOfSubnet(
  subnet: SpiderSubnet,
  pools: readonly SpiderIPPool[],
  reserved: readonly IpRange[] = [],
): IpRange[] {
  const taken = poolsOfSubnet(subnet, pools).flatMap(({ spec }) => mergedAddresses(spec));
  return subtractRanges(mergedAddresses(subnet.spec), [...taken, ...reserved]);
}

/** The first `count` addresses of the ranges; fewer when there are not so many. */
export function takeAddresses(ranges: readonly IpRange[], count: number): IpRange[] {
  const taken: IpRange[] = [];
  let missing = BigInt(Math.max(0, count));
  for (const range of ranges) {
    if (missing === 0n) break;
    const size = rangeSize(range);
    const { family, value } = range.first;
    const last = size <= missing ? range.last : { family, value: value + missing - 1n };
    taken.push({ first: range.first, last });
    missing -= size <= missing ? size : missing;
  }
  return taken;
}

/**
 * {"auto4-web-eth0-12345":{"ips":["10.6.0.10-10.6.0.12"],"application":"apps_v1_Deployment_demo_web"}}: a JSON
 * document in a string, keys in string order; `application` is absent for pools made by hand.
 */
export function encodeControlledPools(pools: readonly SpiderIPPool[]): string | undefined {
  if (pools.length === 0) return undefined;
  const entries = pools.map((pool): [string, object] => {
    const ips = mergedAddresses(pool.spec).map(formatIpRange);
    const application = applicationOf(pool);
    return [pool.metadata.name ?? '', application === undefined ? { ips } : { ips, application }];
  });
  entries.sort(([a], [b]) => compareText(a, b));
  return `{${entries.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(',')}}`;
}

const documentSchema = z.record(z.string(), z.object({ ips: z.array(z.string()), application: z.string().optional() }));

export function decodeControlledPools(text: string | undefined, subnetName: string): z.infer<typeof documentSchema> {
  if (text === undefined || text === '') return {};
  try {
    return documentSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new SluiceError({
      code: 'invalid_resource',
      operation: 'read status.controlledIPPools of',
      object: `SpiderSubnet ${subnetName}`,
      what: 'is not the JSON document it should be',
      remedy: 'remove status.controlledIPPools; the controller writes it anew',
      cause,
    });
  }
}

/** From its labels; `applicationText` of src/ipam/application.ts makes the same text. */
function applicationOf(pool: SpiderIPPool): string | undefined {
  const labels = pool.metadata.labels ?? {};
  const parts = [
    labels[spiderLabels.ownerGroupVersion],
    labels[spiderLabels.ownerKind],
    labels[spiderLabels.ownerNamespace],
    labels[spiderLabels.ownerName],
  ];
  return parts.includes(undefined) ? undefined : parts.join('_');
}

function canonical(subnet: string): string | undefined {
  const prefix = parsePrefix(subnet);
  return prefix === undefined ? undefined : formatPrefix(prefix);
}
