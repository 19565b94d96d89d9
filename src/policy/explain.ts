/**
 * "May A talk to B, and why?", answered from the API objects with the compiler that programs the kernel: the source's
 * egress, the destination's ingress, and for each the rule that decides, or what every rule lacks.
 *
 * Any agent can answer for pods of any node: all of them know the whole cluster.
 */

import type {
  DirectionExplanation,
  EnforcementMode,
  ExplainAnswer,
  ExplainVerdict,
  PathExplanation,
  RuleExplanation,
} from '../api/agent-api.ts';
import type { Namespace, Node, Pod } from '../api/kubernetes.ts';
import { SluiceError } from '../core/error.ts';
import { formatIp, parseIp, type IpAddress, type IpFamily } from '../core/ip.ts';
import { AddressBook, formatParty } from './address-book.ts';
import { compileEndpointPolicy, endpointOfPod, policiesOf } from './compile.ts';
import { ruleNameOf, ruleText } from './describe.ts';
import { IdentityAllocator, type IdentityId } from './identity.ts';
import { computeIpcache, hasEnded, podAddresses } from './ipcache.ts';
import { formatPortQuery, judge, portSetOf, type Judgement, type PortQuery } from './judge.ts';
import type { Direction, PolicyNode } from './node.ts';
import type { PolicyIndex } from './policy-index.ts';
import { PortSet } from './port-set.ts';
import { hostRule, RuleIds } from './rule-id.ts';
import { IdentityView } from './select.ts';
import { lookupIdentity } from './simulate.ts';
import { explainRules, type Peer } from './why.ts';

export interface ExplainWorld {
  readonly pods: readonly Pod[];
  readonly namespaces: readonly Namespace[];
  readonly nodes: readonly Node[];
  readonly policies: PolicyIndex;
  readonly enforcement: EnforcementMode;
  /** Whether the namespace only reports what policy would drop. */
  readonly audited: (namespace: string) => boolean;
}

export interface ExplainQuestion {
  /** "namespace/pod" or an address. */
  readonly from: string;
  readonly to: string;
  /** Absent: every port. */
  readonly port?: PortQuery | undefined;
}

/** Throws SluiceError not_found for a pod that is not there or has no address, invalid_argument for sides that cannot meet. */
export function explain(world: ExplainWorld, question: ExplainQuestion): Omit<ExplainAnswer, 'node'> {
  const book = new AddressBook(world.pods, world.nodes);
  const [sources, destinations] = [addressesOf(world, question.from), addressesOf(world, question.to)];
  const paths = ([4, 6] as const).flatMap((family) => {
    const [source, destination] = [ofFamily(sources, family), ofFamily(destinations, family)];
    if (source === undefined || destination === undefined) return [];
    return [explainPath(world, book, source, destination, question.port)];
  });
  if (paths.length === 0) throw noCommonFamily(question);
  const { from, to, port } = question;
  const verdicts = new Set(paths.map(({ verdict }) => verdict));
  return {
    ...{ from, to },
    ...(port === undefined ? {} : { port: formatPortQuery(port) }),
    verdict: verdicts.size === 1 ? (paths[0]?.verdict ?? 'deny') : 'partly',
    paths,
  };
}

function explainPath(
  world: ExplainWorld,
  book: AddressBook,
  from: IpAddress,
  to: IpAddress,
  port: PortQuery | undefined,
): PathExplanation {
  const egress = explainSide(world, book, { direction: 'egress', own: from, other: to, port });
  const ingress = explainSide(world, book, { direction: 'ingress', own: to, other: from, port });
  const asked = port === undefined ? PortSet.all : portSetOf(port);
  const passing = egress.passing.intersect(ingress.passing).intersect(asked);
  const verdict: ExplainVerdict = passing.isEmpty ? 'deny' : passing.covers(asked) ? 'allow' : 'partly';
  return {
    from: book.partyAt(from),
    to: book.partyAt(to),
    verdict,
    egress: egress.explanation,
    ingress: ingress.explanation,
  };
}

interface SideQuestion {
  readonly direction: Direction;
  /** Of the side that is judged. */
  readonly own: IpAddress;
  readonly other: IpAddress;
  readonly port: PortQuery | undefined;
}

interface Side {
  readonly explanation: DirectionExplanation;
  /** What passes in the end: everything in audit mode. */
  readonly passing: PortSet;
}

function explainSide(world: ExplainWorld, book: AddressBook, question: SideQuestion): Side {
  const { direction, own, other } = question;
  const subject = book.podAt(own);
  if (subject === undefined) return unpoliced(direction, notAPod(book, own));
  if (subject === book.podAt(other)) {
    return unpoliced(direction, `${podName(subject)} talks to itself, which no policy can forbid`, 'self');
  }
  const { judgement, ruleIds, applied } = judgePod(world, book, subject, question);
  const isolating = applied.filter((policy) => policy.isolates[direction]);
  const peer = peerOf(world, book, other);
  const ports = question.port === undefined ? PortSet.all : portSetOf(question.port);
  const rules = isolating.flatMap((policy) => explainRules(policy, { direction, subject, peer, ports }));
  const isolatedBy = isolatedByOf(world, isolating);
  const audit = world.audited(subject.metadata?.namespace ?? '');
  const rule = ruleNameOf(judgement.ruleId, (id) => ruleIds.lookup(id));
  const explanation: DirectionExplanation = {
    ...{ direction, verdict: judgement.verdict, reason: reasonOf(judgement, isolatedBy), rule, audit },
    ...(judgement.verdict === 'partly' ? { allowedPorts: judgement.allowed.toString() } : {}),
    ...{ isolatedBy, rules, summary: '' },
  };
  const summary = summarize(explanation, podName(subject), formatParty(book.partyAt(other)), isolating);
  return { explanation: { ...explanation, summary }, passing: audit ? PortSet.all : judgement.allowed };
}

/** Compiles the pod's policy as its agent does, for a world that holds only what the verdict depends on. */
function judgePod(
  world: ExplainWorld,
  book: AddressBook,
  subject: Pod,
  { direction, other, port }: SideQuestion,
): { readonly judgement: Judgement; readonly ruleIds: RuleIds; readonly applied: readonly PolicyNode[] } {
  const endpoint = endpointOfPod(subject);
  const [peerPod, peerNode] = [book.podAt(other), book.nodeAt(other)];
  const descriptors = computeIpcache({
    pods: peerPod === undefined ? [] : [peerPod],
    nodes: peerNode === undefined ? [] : [peerNode],
    namespaces: world.namespaces.filter(({ metadata }) => metadata?.name === peerPod?.metadata?.namespace),
    nodeName: subject.spec?.nodeName ?? '',
    prefixes: world.policies.prefixes([endpoint.namespace]),
  });
  const allocator = new IdentityAllocator({ nowMs: () => 0 });
  const ipcache = new Map<string, IdentityId>();
  for (const [prefix, descriptor] of descriptors) ipcache.set(prefix, allocator.acquire(descriptor) as IdentityId);
  const ruleIds = new RuleIds();
  const view = new IdentityView(allocator.entries());
  const policy = compileEndpointPolicy(endpoint, world.policies, view, ruleIds, world.enforcement);
  return {
    judgement: judge(policy, direction, lookupIdentity(ipcache, other), port),
    ruleIds,
    applied: world.enforcement === 'never' ? [] : policiesOf(endpoint, world.policies),
  };
}

function isolatedByOf({ enforcement }: ExplainWorld, isolating: readonly PolicyNode[]): string[] {
  const names = isolating.map(({ name }) => name);
  return enforcement === 'always' ? [...names, '(--policy-enforcement always)'] : names;
}

function reasonOf({ ruleId, verdict }: Judgement, isolatedBy: readonly string[]): DirectionExplanation['reason'] {
  if (isolatedBy.length === 0) return 'not_isolated';
  if (ruleId === hostRule) return 'own_node';
  return verdict === 'deny' ? 'no_rule' : 'rule';
}

function summarize(
  side: DirectionExplanation,
  subject: string,
  other: string,
  isolating: readonly PolicyNode[],
): string {
  const { direction, reason, verdict, rule, isolatedBy, audit } = side;
  if (reason === 'not_isolated') return `no policy isolates ${direction} of ${subject}`;
  if (reason === 'own_node') return `${other} is the node of ${subject}, which always reaches it`;
  if (verdict === 'allow') return allowedSummary(rule, side.rules);
  const word = direction === 'ingress' ? 'from' : 'to';
  if (verdict === 'partly') {
    return `${direction} of ${subject} is isolated, and ${side.allowedPorts ?? ''} ${word} ${other} is allowed`;
  }
  const faults = isolating.flatMap((policy) =>
    policy.diagnostics.filter(({ field }) => field.startsWith('spec.podSelector')).map(({ message }) => message),
  );
  const by = isolatedBy.length === 0 ? '' : ` by ${isolatedBy.join(', ')}`;
  const end = audit ? '; the namespace is in audit mode: it passes and is reported' : '';
  return (
    [`${direction} of ${subject} is isolated${by} and no rule allows it ${word} ${other}`, ...faults].join('; ') + end
  );
}

/** Every port may be allowed by several rules together, and then no single one decides. */
function allowedSummary(rule: DirectionExplanation['rule'], rules: readonly RuleExplanation[]): string {
  if (rule.kind !== 'none') return `${ruleText(rule)} allows it`;
  const names = rules.filter(({ matches }) => matches).map((one) => `${one.namespace}/${one.policy}[${one.index}]`);
  return `${names.join(' and ')} allow it together`;
}

function unpoliced(direction: Direction, summary: string, reason: 'self' | 'not_policed' = 'not_policed'): Side {
  const none = { kind: 'none' } as const;
  const explanation: DirectionExplanation = {
    ...{ direction, verdict: 'allow', reason, rule: none, audit: false, isolatedBy: [], rules: [], summary },
  };
  return { explanation, passing: PortSet.all };
}

function notAPod(book: AddressBook, ip: IpAddress): string {
  const node = book.nodeAt(ip)?.metadata?.name;
  if (node === undefined) return `${formatIp(ip)} is no pod: nothing is enforced on that side`;
  return `${formatIp(ip)} is node ${node} (or a hostNetwork pod on it): NetworkPolicy does not apply to it`;
}

function peerOf(world: ExplainWorld, book: AddressBook, ip: IpAddress): Peer {
  const pod = book.podAt(ip);
  const namespace = world.namespaces.find(({ metadata }) => metadata?.name === pod?.metadata?.namespace);
  return { ip, pod, namespace, node: book.nodeAt(ip) };
}

function addressesOf(world: ExplainWorld, text: string): IpAddress[] {
  const ip = parseIp(text);
  if (ip !== undefined) return [ip];
  const [namespace, name, rest] = text.split('/');
  if (namespace === undefined || name === undefined || name === '' || rest !== undefined) {
    throw failure('invalid_argument', text, 'it is neither NAMESPACE/POD nor an address', 'write demo/web or 10.0.0.1');
  }
  const pod = world.pods.find(({ metadata }) => metadata?.namespace === namespace && metadata.name === name);
  if (pod === undefined) {
    throw failure('not_found', text, 'there is no such pod', `kubectl get pods -n ${namespace} lists them`);
  }
  if (hasEnded(pod)) {
    const what = `the pod has ended (${pod.status?.phase ?? ''}) and its address may belong to another`;
    throw failure('invalid_argument', text, what, 'name a running pod');
  }
  if (pod.spec?.hostNetwork === true) {
    const ips = [...new Set((pod.status?.podIPs ?? []).map((entry) => entry.ip))];
    return ips.flatMap((one) => parseIp(one) ?? []);
  }
  const addresses = podAddresses(pod);
  if (addresses.length > 0) return addresses;
  throw failure('not_found', text, 'the pod has no address yet', 'wait until its network is ready');
}

function ofFamily(addresses: readonly IpAddress[], family: IpFamily): IpAddress | undefined {
  return addresses.find((address) => address.family === family);
}

function podName(pod: Pod): string {
  return `${pod.metadata?.namespace ?? ''}/${pod.metadata?.name ?? ''}`;
}

function noCommonFamily({ from, to }: ExplainQuestion): SluiceError {
  return failure(
    'invalid_argument',
    `${from} → ${to}`,
    'they have no address family in common',
    'check their addresses',
  );
}

function failure(code: 'invalid_argument' | 'not_found', object: string, what: string, remedy: string): SluiceError {
  return new SluiceError({ code, operation: 'explain', object, what, remedy });
}
