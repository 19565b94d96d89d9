import type { NodeAddresses } from '../api/agent-api.ts';
import type { SpiderIPPool } from '../api/spiderippool.ts';
import { rangeContains, type IpRange } from '../core/ip-range.ts';
import { parseIp } from '../core/ip.ts';
import { compareText } from '../core/labels.ts';
import { decodeAllocatedIps, type AllocationRecord } from './allocated-ips.ts';
import { isPodAlive, type IpamPod } from './pod.ts';
import { mergedAddresses, totalAddressCount } from './pool-addresses.ts';

/**
 * Whether pools, pods, SpiderEndpoints and the interfaces of the nodes tell one story. A value in, findings out: the looks
 * are not of one instant, so what a running ADD or DEL shows for a moment is for the caller to look at twice.
 */

export const findingKinds = {
  duplicate: 'Two interfaces have the address, or two pools record it.',
  leak: 'The record’s pod is gone or has ended.',
  stray: 'An interface has an address of a pool that records it for nobody.',
  missing: 'The record’s pod runs, and none of its interfaces has the address.',
  endpoint: 'A SpiderEndpoint and the pool’s records contradict each other.',
  outside: 'The record’s address is not one of its pool.',
  count: 'A count in the pool’s status is wrong.',
  unreadable: 'The pool’s records or addresses cannot be read.',
} as const;
export type FindingKind = keyof typeof findingKinds;

export interface Finding {
  readonly kind: FindingKind;
  readonly address?: string;
  readonly pool?: string;
  /** namespace/name */
  readonly pod?: string;
  readonly nodes?: readonly string[];
  readonly message: string;
}

/** A SpiderEndpoint: what a pod was told it has. */
export interface EndpointClaim {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** The addresses outlive the pod: a StatefulSet's or a virtual machine's. */
  readonly kept: boolean;
  readonly addresses: readonly { readonly interface: string; readonly address: string; readonly pool: string }[];
}

export interface AuditInput {
  readonly pools: readonly SpiderIPPool[];
  readonly pods: readonly AuditedPod[];
  readonly endpoints: readonly EndpointClaim[];
  /** Of every node that answered. */
  readonly nodes: readonly NodeAddresses[];
}

export type AuditedPod = IpamPod;

export function auditAddresses(input: AuditInput): Finding[] {
  const scene = sceneOf(input);
  const findings = [
    ...scene.unreadable,
    ...scene.records.flatMap((record) => recordFindings(record, scene)),
    ...duplicateFindings(scene),
    ...strayFindings(scene),
    ...input.endpoints.flatMap((claim) => endpointFindings(claim, scene)),
    ...input.pools.flatMap((pool) => countFindings(pool, scene)),
  ];
  return findings.sort((a, b) => compareText(findingKey(a), findingKey(b)));
}

/** Equal for a finding of an earlier look that is still there. */
export function findingKey({ kind, pool = '', address = '', pod = '', message }: Finding): string {
  return [kind, pool, address, pod, message].join('\0');
}

interface Record extends AllocationRecord {
  readonly pool: string;
  readonly address: string;
}

interface Holder {
  readonly node: string;
  readonly netns: string;
  readonly interface: string;
  readonly address: string;
  /** Undefined when no agent knows whose the interface is. */
  readonly pod: { readonly namespace: string; readonly name: string; readonly uid: string } | undefined;
}

interface Scene {
  readonly records: readonly Record[];
  readonly recordsByAddress: ReadonlyMap<string, readonly Record[]>;
  readonly holdersByAddress: ReadonlyMap<string, readonly Holder[]>;
  readonly podsByName: ReadonlyMap<string, AuditedPod>;
  /** "uid address" of SpiderEndpoints whose addresses are kept. */
  readonly kept: ReadonlySet<string>;
  readonly answered: ReadonlySet<string>;
  readonly rangesOf: ReadonlyMap<string, readonly IpRange[]>;
  readonly unreadable: readonly Finding[];
}

function sceneOf({ pools, pods, endpoints, nodes }: AuditInput): Scene {
  const unreadable: Finding[] = [];
  const records = pools.flatMap((pool) => {
    const name = pool.metadata.name ?? '';
    try {
      const decoded = decodeAllocatedIps(pool.status?.allocatedIPs, name);
      return [...decoded].map(([address, record]) => ({ ...record, address, pool: name }));
    } catch {
      unreadable.push({ kind: 'unreadable', pool: name, message: 'status.allocatedIPs is not the JSON it should be' });
      return [];
    }
  });
  const recordsByAddress = groupBy(records, ({ address }) => address);
  const rangesOf = new Map(pools.map((pool) => [pool.metadata.name ?? '', mergedAddresses(pool.spec)]));
  // A node's bridges and other networks' pods have addresses too, on every node the same ones.
  const isOurs = ({ address }: Holder): boolean =>
    recordsByAddress.has(address) || poolHolding(address, rangesOf) !== undefined;
  const holders = nodes.flatMap(holdersOf).filter(isOurs);
  return {
    records,
    recordsByAddress,
    holdersByAddress: groupBy(holders, ({ address }) => address),
    podsByName: new Map(pods.map((pod) => [`${pod.metadata?.namespace ?? ''}/${pod.metadata?.name ?? ''}`, pod])),
    kept: new Set(
      endpoints.flatMap(({ kept, addresses, namespace, name }) =>
        kept ? addresses.map(({ address }) => `${namespace}/${name} ${address}`) : [],
      ),
    ),
    answered: new Set(nodes.map(({ node }) => node)),
    rangesOf,
    unreadable,
  };
}

function poolHolding(address: string, rangesOf: Scene['rangesOf']): string | undefined {
  const ip = parseIp(address);
  if (ip === undefined) return undefined;
  return [...rangesOf].find(([, ranges]) => ranges.some((range) => rangeContains(range, ip)))?.[0];
}

function holdersOf({ node, namespaces }: NodeAddresses): Holder[] {
  return namespaces.flatMap(({ netns, pod, interfaces }) =>
    interfaces.flatMap(({ name, addresses }) =>
      addresses.map((address) => ({ node, netns, interface: name, address, pod })),
    ),
  );
}

function recordFindings(record: Record, scene: Scene): Finding[] {
  const { address, pool, pod: podName } = record;
  const about = { address, pool, pod: podName };
  const findings: Finding[] = [];
  const own = new Map([[pool, scene.rangesOf.get(pool) ?? []]]);
  if (poolHolding(address, own) === undefined)
    findings.push({ kind: 'outside', ...about, message: 'the pool does not have this address' });
  const pod = scene.podsByName.get(podName);
  if (pod === undefined || pod.metadata?.uid !== record.podUid) {
    if (scene.kept.has(`${podName} ${address}`)) return findings;
    const why = pod === undefined ? 'is gone' : 'is another pod of the same name now';
    return [...findings, { kind: 'leak', ...about, message: `pod ${podName} (uid ${record.podUid}) ${why}` }];
  }
  if (pod.metadata.deletionTimestamp) return findings;
  if (!isPodAlive(pod)) {
    const message = `pod ${podName} has ended (${pod.status?.reason ?? pod.status?.phase ?? 'unknown'})`;
    return [...findings, { kind: 'leak', ...about, message }];
  }
  return [...findings, ...missingFinding(record, pod, scene)];
}

/** The pod runs on a node that answered, and does not have what is recorded for it. */
function missingFinding(record: Record, pod: AuditedPod, scene: Scene): Finding[] {
  const node = pod.spec?.nodeName;
  if (pod.status?.phase !== 'Running' || node === undefined || !scene.answered.has(node)) return [];
  const holders = scene.holdersByAddress.get(record.address) ?? [];
  if (holders.some((holder) => holder.node === node && isOf(holder, record))) return [];
  const message = `pod ${record.pod} runs on ${node}, and its ${record.interface} does not have the address`;
  return [{ kind: 'missing', address: record.address, pool: record.pool, pod: record.pod, nodes: [node], message }];
}

/** An interface that no agent knows may be anybody's. */
function isOf({ pod }: Holder, { podUid }: Pick<AllocationRecord, 'podUid'>): boolean {
  return pod === undefined || pod.uid === podUid;
}

function duplicateFindings({ recordsByAddress, holdersByAddress }: Scene): Finding[] {
  const findings: Finding[] = [];
  for (const [address, records] of recordsByAddress) {
    if (records.length < 2) continue;
    const message = `recorded by ${records.map(({ pool, pod }) => `${pool} for ${pod}`).join(' and ')}`;
    findings.push({ kind: 'duplicate', address, message });
  }
  for (const [address, holders] of holdersByAddress) {
    const records = recordsByAddress.get(address) ?? [];
    if (records.length === 0 && holders.length < 2) continue;
    const wrong = holders.filter((holder) => records.length > 0 && !records.some((record) => isOf(holder, record)));
    const nodes = [...new Set(holders.map(({ node }) => node))];
    if (new Set(holders.map(({ netns, node }) => `${node} ${netns}`)).size > 1) {
      const message = `on ${holders.map(holderText).join(' and ')}`;
      findings.push({ kind: 'duplicate', address, nodes, message });
    } else if (wrong.length > 0) {
      const [record] = records;
      const message = `recorded for ${record?.pod ?? ''}, and on ${wrong.map(holderText).join(' and ')}`;
      findings.push({ kind: 'duplicate', address, pool: record?.pool ?? '', nodes, message });
    }
  }
  return findings;
}

function strayFindings({ holdersByAddress, recordsByAddress, rangesOf }: Scene): Finding[] {
  const findings: Finding[] = [];
  for (const [address, holders] of holdersByAddress) {
    if (recordsByAddress.has(address)) continue;
    const pool = poolHolding(address, rangesOf);
    if (pool === undefined) continue;
    const nodes = [...new Set(holders.map(({ node }) => node))];
    const message = `on ${holders.map(holderText).join(' and ')}, and the pool records it for nobody`;
    findings.push({ kind: 'stray', address, pool, nodes, message });
  }
  return findings;
}

function holderText({ node, netns, interface: name, pod }: Holder): string {
  return pod === undefined
    ? `${name} of ${netns} on ${node}`
    : `${name} of pod ${pod.namespace}/${pod.name} on ${node}`;
}

/** What a SpiderEndpoint says it has, its pools must record for it. */
function endpointFindings(claim: EndpointClaim, scene: Scene): Finding[] {
  const pod = `${claim.namespace}/${claim.name}`;
  return claim.addresses.flatMap(({ address, pool, interface: name }): Finding[] => {
    const record = scene.recordsByAddress.get(address)?.find((one) => one.pool === pool);
    if (record?.podUid === claim.uid) return [];
    const found =
      record === undefined ? 'records it for nobody' : `records it for ${record.pod} (uid ${record.podUid})`;
    const message = `SpiderEndpoint ${pod} (uid ${claim.uid}) has it on ${name}, and the pool ${found}`;
    return [{ kind: 'endpoint', address, pool, pod, message }];
  });
}

function countFindings(pool: SpiderIPPool, scene: Scene): Finding[] {
  const name = pool.metadata.name ?? '';
  const { status } = pool;
  if (status === undefined || scene.unreadable.some((finding) => finding.pool === name)) return [];
  const records = scene.records.filter((record) => record.pool === name).length;
  const counts = [
    ['allocatedIPCount', status.allocatedIPCount, records],
    ['totalIPCount', status.totalIPCount, totalAddressCount(pool.spec)],
  ] as const;
  return counts.flatMap(([field, told, real]): Finding[] =>
    told === undefined || told === real
      ? []
      : [{ kind: 'count', pool: name, message: `status.${field} is ${told}, and it should be ${real}` }],
  );
}

function groupBy<T>(values: readonly T[], keyOf: (value: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const value of values) {
    const group = groups.get(keyOf(value));
    if (group === undefined) groups.set(keyOf(value), [value]);
    else group.push(value);
  }
  return groups;
}
