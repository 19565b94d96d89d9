/** NetworkPolicy object → PolicyNode. */

import type { NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec } from '../api/kubernetes.ts';
import { formatPrefix, parsePrefix, prefixContains, type IpPrefix } from '../core/ip.ts';
import { compareText, isSelectorOperator, selectorKey, type LabelSelector } from '../core/labels.ts';
import { DiagnosticSink } from './diagnostics.ts';
import { isBlockEmpty } from './lint-cover.ts';
import type { Direction, PeerNode, PolicyNode, RuleNode } from './node.ts';
import { portPrefixes, protocolNumber, type PortNode } from './port.ts';

/** Never throws: what is not understood becomes a diagnostic, and the rule it is in allows nothing. */
export function parsePolicy(policy: NetworkPolicy): PolicyNode {
  const { namespace = '', name = '', uid } = policy.metadata ?? {};
  const spec = policy.spec ?? {};
  const sink = new DiagnosticSink(namespace, name);
  const isolates = isolatedDirections(spec, sink);
  const subjectIsValid = checkSelector(spec.podSelector, 'spec.podSelector', sink);
  const rules = [
    ...(isolates.ingress
      ? (spec.ingress ?? []).map((rule, index) => parseRule('ingress', index, rule.from, rule.ports, namespace, sink))
      : []),
    ...(isolates.egress
      ? (spec.egress ?? []).map((rule, index) => parseRule('egress', index, rule.to, rule.ports, namespace, sink))
      : []),
  ].filter((rule) => rule !== undefined);
  return deepFreeze({
    namespace,
    name,
    uid: uid ?? `${namespace}/${name}`,
    // A selector that is not understood must not leave open the pods it was meant for.
    subject: subjectIsValid ? (spec.podSelector ?? {}) : {},
    isolates,
    rules: subjectIsValid ? rules : [],
    diagnostics: sink.diagnostics,
  });
}

/**
 * Without policyTypes: Ingress always, Egress if there are egress rules (NetworkPolicySpec.policyTypes). With a type that
 * is not understood the same holds besides the types that are: what it was to close must not stay open.
 */
function isolatedDirections(spec: NetworkPolicySpec, sink: DiagnosticSink): { ingress: boolean; egress: boolean } {
  const types = spec.policyTypes ?? [];
  for (const [index, type] of types.entries()) {
    if (isPolicyType(type)) continue;
    const message = `"${type}" is not a policy type; directions are isolated as without types`;
    sink.error('unknown_policy_type', `spec.policyTypes[${index}]`, message, 'use Ingress and Egress');
  }
  if (types.length > 0 && types.every(isPolicyType)) {
    return { ingress: types.includes('Ingress'), egress: types.includes('Egress') };
  }
  return { ingress: true, egress: types.includes('Egress') || (spec.egress ?? []).length > 0 };
}

function isPolicyType(type: string): boolean {
  return type === 'Ingress' || type === 'Egress';
}

function parseRule(
  direction: Direction,
  index: number,
  peers: readonly NetworkPolicyPeer[] | undefined,
  ports: readonly NetworkPolicyPort[] | undefined,
  namespace: string,
  sink: DiagnosticSink,
): RuleNode | undefined {
  const field = `spec.${direction}[${index}]`;
  const peersField = `${field}.${direction === 'ingress' ? 'from' : 'to'}`;
  const errorsBefore = sink.errorCount;
  const peerNodes = nonEmpty(peers)?.map((peer, i) => parsePeer(peer, namespace, `${peersField}[${i}]`, sink));
  const portNodes = nonEmpty(ports)?.map((port, i) => parsePort(port, `${field}.ports[${i}]`, sink));
  if (sink.errorCount > errorsBefore) return undefined;
  return {
    direction,
    index,
    peers: peerNodes?.filter((peer) => peer !== undefined),
    ports: portNodes?.filter((port) => port !== undefined),
  };
}

/** Absent and empty both mean "no restriction" for `from`, `to` and `ports`. */
function nonEmpty<T>(list: readonly T[] | undefined): readonly T[] | undefined {
  return list === undefined || list === null || list.length === 0 ? undefined : list;
}

function parsePeer(
  peer: NetworkPolicyPeer,
  namespace: string,
  field: string,
  sink: DiagnosticSink,
): PeerNode | undefined {
  const { podSelector, namespaceSelector, ipBlock } = peer;
  const selectsPods = isPresent(podSelector) || isPresent(namespaceSelector);
  if (isPresent(ipBlock) === selectsPods) {
    const message = selectsPods
      ? 'ipBlock stands beside a selector; the rule allows nothing'
      : 'the peer is empty; the rule allows nothing';
    sink.error(
      'invalid_peer',
      field,
      message,
      'give a peer either an ipBlock, or a podSelector, a namespaceSelector or both',
    );
    return undefined;
  }
  if (isPresent(ipBlock)) return parseIpBlock(ipBlock, `${field}.ipBlock`, sink);
  const podsOk = checkSelector(podSelector, `${field}.podSelector`, sink);
  const namespacesOk = checkSelector(namespaceSelector, `${field}.namespaceSelector`, sink);
  return podsOk && namespacesOk ? podsPeer(podSelector ?? {}, namespaceSelector ?? undefined, namespace) : undefined;
}

function podsPeer(
  podSelector: LabelSelector,
  namespaceSelector: LabelSelector | undefined,
  namespace: string,
): PeerNode {
  const scope = namespaceSelector === undefined ? `in ${namespace}` : `where ${selectorKey(namespaceSelector)}`;
  const key = `pods ${selectorKey(podSelector)} ${scope}`;
  return {
    kind: 'pods',
    namespace: namespaceSelector === undefined ? namespace : undefined,
    namespaceSelector,
    podSelector,
    key,
  };
}

function parseIpBlock(
  block: { readonly cidr: string; readonly except?: readonly string[] | undefined },
  field: string,
  sink: DiagnosticSink,
): PeerNode | undefined {
  const cidr = parseCidr(block.cidr, `${field}.cidr`, sink);
  const except = (block.except ?? []).map((text, index) => {
    const hole = parseCidr(text, `${field}.except[${index}]`, sink);
    if (hole === undefined || cidr === undefined || prefixContains(cidr, hole)) return hole;
    const message = `${text} is not inside ${block.cidr}; the rule allows nothing`;
    sink.error('except_outside_cidr', `${field}.except[${index}]`, message, 'except only part of the cidr');
    return undefined;
  });
  if (cidr === undefined || except.includes(undefined)) return undefined;
  const texts = [...new Set(except.flatMap((hole) => (hole === undefined ? [] : formatPrefix(hole))))].sort(
    compareText,
  );
  const peer: PeerNode & { kind: 'prefix' } = {
    kind: 'prefix',
    cidr: formatPrefix(cidr),
    except: texts,
    key: `prefix ${formatPrefix(cidr)} except ${texts.join(' ')}`,
  };
  if (texts.length > 0 && isBlockEmpty(peer)) {
    const message = `the exceptions leave nothing of ${peer.cidr}; the peer allows nothing`;
    sink.warning('empty_ip_block', `${field}.except`, message, 'except less, or remove the peer');
  }
  return peer;
}

function parseCidr(text: string, field: string, sink: DiagnosticSink): IpPrefix | undefined {
  const prefix = typeof text === 'string' ? parsePrefix(text) : undefined;
  if (prefix === undefined) {
    const message = `"${text}" is not an address prefix; the rule allows nothing`;
    sink.error('invalid_cidr', field, message, 'write it as 192.0.2.0/24 or 2001:db8::/64');
  }
  return prefix;
}

function parsePort(port: NetworkPolicyPort, field: string, sink: DiagnosticSink): PortNode | undefined {
  const protocol = protocolNumber(port.protocol ?? 'TCP');
  if (protocol === undefined) {
    const message = `"${port.protocol}" is not a protocol of NetworkPolicy; the rule allows nothing`;
    sink.error('unknown_protocol', `${field}.protocol`, message, 'use TCP, UDP or SCTP');
    return undefined;
  }
  if (typeof port.port === 'string') return parseNamedPort(port.port, port.endPort, protocol, field, sink);
  return parseNumericPort(port.port, port.endPort, protocol, field, sink);
}

function parseNamedPort(
  name: string,
  endPort: number | undefined,
  protocol: number,
  field: string,
  sink: DiagnosticSink,
): PortNode | undefined {
  if (isPresent(endPort)) {
    const message = `endPort stands beside the port name "${name}"; the rule allows nothing`;
    sink.error(
      'invalid_end_port',
      `${field}.endPort`,
      message,
      'give the first port as a number, or leave endPort out',
    );
    return undefined;
  }
  if (name === '') {
    sink.error(
      'invalid_port',
      `${field}.port`,
      'the port name is empty; the rule allows nothing',
      'name a container port',
    );
    return undefined;
  }
  return { kind: 'named', protocol, name };
}

function parseNumericPort(
  first: number | undefined,
  endPort: number | undefined,
  protocol: number,
  field: string,
  sink: DiagnosticSink,
): PortNode | undefined {
  if (!isPresent(first)) {
    if (!isPresent(endPort)) return { kind: 'all', protocol };
    sink.error(
      'invalid_end_port',
      `${field}.endPort`,
      'endPort has no port; the rule allows nothing',
      'give the first port of the range as port',
    );
    return undefined;
  }
  if (!isPort(first)) {
    sink.error('invalid_port', `${field}.port`, `${first} is not a port; the rule allows nothing`, 'use 1 to 65535');
    return undefined;
  }
  const last = isPresent(endPort) ? endPort : first;
  if (!isPort(last) || last < first) {
    const message = `${last} is not a port from ${first} on; the rule allows nothing`;
    sink.error('invalid_end_port', `${field}.endPort`, message, `use ${first} to 65535`);
    return undefined;
  }
  return { kind: 'range', protocol, prefixes: portPrefixes(first, last) };
}

function checkSelector(selector: LabelSelector | undefined, field: string, sink: DiagnosticSink): boolean {
  let valid = true;
  for (const [index, { operator, values }] of (selector?.matchExpressions ?? []).entries()) {
    const wantsValues = operator === 'In' || operator === 'NotIn';
    if (isSelectorOperator(operator) && wantsValues === (values ?? []).length > 0) continue;
    const message = `operator "${operator}" with ${(values ?? []).length} values has no meaning; nothing is allowed`;
    sink.error(
      'invalid_selector',
      `${field}.matchExpressions[${index}]`,
      message,
      'use In or NotIn with values, Exists or DoesNotExist without',
    );
    valid = false;
  }
  return valid;
}

function isPort(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= 65535;
}

/** JSON null is as good as absent. */
function isPresent<T>(value: T | undefined | null): value is T {
  return value !== undefined && value !== null;
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const inner of Object.values(value)) deepFreeze(inner);
  }
  return value;
}
