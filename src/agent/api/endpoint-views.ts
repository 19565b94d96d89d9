/** Endpoints as the agent's API shows them: what the record, the kernel and the API objects say, side by side. */
import type {
  EndpointDetail,
  EndpointPolicyInfo,
  EndpointSummary,
  KernelEntry,
  PacketCounter,
  RuleCounter,
  RuleInForce,
} from '../../api/agent-api.ts';
import { parseIp, parsePrefix } from '../../core/ip.ts';
import type { PolicyEntry } from '../../datapath/datapath.ts';
import { formatParty } from '../../policy/address-book.ts';
import { endpointOfPod, policiesOf } from '../../policy/compile.ts';
import { peersText, portsText } from '../../policy/describe.ts';
import { formatDiagnostic } from '../../policy/diagnostics.ts';
import type { PolicyNode, RuleNode } from '../../policy/node.ts';
import { PortSet } from '../../policy/port-set.ts';
import { reservedIdentity } from '../../datapath/abi.ts';
import { bandwidthUsage } from '../bandwidth-usage.ts';
import type { EndpointRecord } from '../endpoint-store.ts';
import { bandwidthInfos } from './bandwidth-views.ts';
import type { AgentApiSources } from './sources.ts';

/** Sorted by namespace and name. */
export function endpointSummaries(sources: AgentApiSources): EndpointSummary[] {
  const states = statesOf(sources);
  const records = [...sources.endpoints()].sort((a, b) => (podKey(a) < podKey(b) ? -1 : 1));
  return records.map((record) => summaryOf(sources, record, states));
}

/** One for each interface; empty when the pod has none on this node. */
export function endpointDetails(sources: AgentApiSources, namespace: string, name: string): EndpointDetail[] {
  const states = statesOf(sources);
  const [packets, rules] = [packetCounters(sources), ruleCounters(sources)];
  return recordsOf(sources, namespace, name).map((record) => ({
    ...summaryOf(sources, record, states),
    containerId: record.containerId,
    netns: record.netns,
    interfaces: record.interfaces,
    network: record.networkName,
    createdAt: record.createdAt,
    counters: packets.get(record.endpointId) ?? [],
    rules: rules.get(record.endpointId) ?? [],
    bandwidth: bandwidthInfos(sources.nodeName, bandwidthUsage([record], sources.bandwidth)),
  }));
}

export function endpointPolicies(sources: AgentApiSources, namespace: string, name: string): EndpointPolicyInfo[] {
  const states = statesOf(sources);
  const peers = identityTexts(sources);
  return recordsOf(sources, namespace, name).map((record) => {
    const policies = policiesFor(sources, record);
    const by = (direction: 'ingress' | 'egress'): string[] => [
      ...policies.filter(({ isolates }) => isolates[direction]).map((policy) => policy.name),
      ...(sources.enforcement === 'always' ? ['(--policy-enforcement always)'] : []),
    ];
    return {
      ...summaryOf(sources, record, states),
      isolatedBy: { ingress: by('ingress'), egress: by('egress') },
      rules: policies.flatMap((policy) => policy.rules.map((rule) => ruleInForce(policy, rule))),
      entries: sources.kernel.policyEntries(record.endpointId).map((entry) => kernelEntry(sources, entry, peers)),
      diagnostics: policies.flatMap((policy) => policy.diagnostics).map(formatDiagnostic),
    };
  });
}

export function recordsOf(sources: AgentApiSources, namespace: string, name: string): EndpointRecord[] {
  return sources.endpoints().filter(({ pod }) => pod.namespace === namespace && pod.name === name);
}

/** By endpoint id. */
export function packetCounters(sources: AgentApiSources): Map<number, PacketCounter[]> {
  const byEndpoint = new Map<number, PacketCounter[]>();
  for (const { endpointId, direction, reason, packets, bytes } of sources.kernel.counters()) {
    const counter = { direction, reason, packets: Number(packets), bytes: Number(bytes) };
    byEndpoint.set(endpointId, [...(byEndpoint.get(endpointId) ?? []), counter]);
  }
  return byEndpoint;
}

export function ruleCounters(sources: AgentApiSources): Map<number, RuleCounter[]> {
  const byEndpoint = new Map<number, RuleCounter[]>();
  for (const { endpointId, direction, ruleId, decisions } of sources.kernel.ruleCounters()) {
    const counter = { direction, rule: sources.rules.nameOf(ruleId), decisions: Number(decisions) };
    byEndpoint.set(endpointId, [...(byEndpoint.get(endpointId) ?? []), counter]);
  }
  return byEndpoint;
}

type States = ReadonlyMap<number, ReturnType<AgentApiSources['kernel']['endpoints']>[number]>;

function statesOf(sources: AgentApiSources): States {
  return new Map(sources.kernel.endpoints().map((state) => [state.endpointId, state]));
}

function summaryOf(sources: AgentApiSources, record: EndpointRecord, states: States): EndpointSummary {
  const state = states.get(record.endpointId);
  const programmed = state?.programmed === true;
  return {
    node: sources.nodeName,
    endpointId: record.endpointId,
    pod: record.pod,
    interface: record.ifName,
    addresses: record.ips,
    programmed,
    ...(!programmed && sources.isTakingOver(record) && { takeover: takeoverText(sources) }),
    policyEnforcement: sources.enforcement,
    isolated: state?.isolated ?? { ingress: false, egress: false },
    audit: state?.audit === true,
    revision: state?.policyRevision ?? 0,
    policies: policiesFor(sources, record).map(({ name }) => name),
  };
}

function takeoverText(sources: AgentApiSources): string {
  const waitsFor = sources.problems().join('; ') || 'its policy, which is being written';
  return `programs of the agent before enforce the policy that they know; they are replaced after: ${waitsFor}`;
}

function policiesFor(sources: AgentApiSources, record: EndpointRecord): PolicyNode[] {
  const pod = sources.cluster.podOf(record.pod);
  return pod === undefined ? [] : policiesOf(endpointOfPod(pod), sources.cluster.policyIndex);
}

function ruleInForce(policy: PolicyNode, rule: RuleNode): RuleInForce {
  const { direction, index } = rule;
  const { namespace, name } = policy;
  return {
    rule: { kind: 'policy', namespace, policy: name, direction, index },
    direction,
    peers: peersText(rule),
    ports: portsText(rule),
  };
}

function kernelEntry(
  sources: AgentApiSources,
  entry: PolicyEntry,
  peers: ReadonlyMap<number, readonly string[]>,
): KernelEntry {
  const { direction, identity, protocol, port, portPrefixLen, ruleId } = entry;
  const ports = PortSet.ofMatch(entry).toString();
  const rule = sources.rules.nameOf(ruleId);
  return { direction, identity, peer: peerOf(identity, peers), protocol, port, portPrefixLen, ports, ruleId, rule };
}

const fixedNames: Readonly<Record<number, string>> = {
  [reservedIdentity.any]: 'anyone',
  [reservedIdentity.host]: 'this node',
  [reservedIdentity.world]: 'outside',
};
const namesShown = 3;

function peerOf(identity: number, peers: ReadonlyMap<number, readonly string[]>): string {
  const known = peers.get(identity);
  if (known === undefined) return fixedNames[identity] ?? `identity ${identity}, of no address now`;
  const more = known.length > namesShown ? ` and ${known.length - namesShown} more` : '';
  return `${known.slice(0, namesShown).join(', ')}${more}`;
}

/** Identity → whose addresses the kernel takes for it. */
function identityTexts(sources: AgentApiSources): Map<number, string[]> {
  const { book } = sources.parties;
  const texts = new Map<number, string[]>();
  for (const [prefix, identity] of sources.kernel.ipcache()) {
    const ip = isSingle(prefix) ? parseIp(prefix.split('/')[0] ?? '') : undefined;
    const text = ip === undefined ? prefix : formatParty(book.partyAt(ip));
    texts.set(identity, [...(texts.get(identity) ?? []), text]);
  }
  return texts;
}

function isSingle(text: string): boolean {
  const prefix = parsePrefix(text);
  return prefix?.prefixLen === (prefix?.address.family === 4 ? 32 : 128);
}

function podKey({ pod }: EndpointRecord): string {
  return `${pod.namespace}/${pod.name}`;
}
