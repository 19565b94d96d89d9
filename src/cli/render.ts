/** What the policy commands print for people. Pure: values in, text out. */
import type {
  DirectionExplanation,
  EndpointDetail,
  EndpointPolicyInfo,
  EndpointSummary,
  ExplainAnswer,
  FlowEvent,
  NodeInfo,
  Party,
  PolicyDirection,
} from '../api/agent-api.ts';
import { ruleText } from '../policy/describe.ts';
import { bandwidthLine } from './render-bandwidth.ts';

/** Columns as wide as their widest cell, two spaces apart. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)));
  return all
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

export function renderStatus(nodes: readonly NodeInfo[]): string {
  const stateOf = ({ synced, problems }: NodeInfo): string => {
    if (!synced) return 'waits for the API';
    return problems.length === 0 ? 'ready' : 'has problems';
  };
  const rows = nodes.map((one) => [one.node, one.policyEnforcement, stateOf(one)]);
  const problems = nodes.flatMap(({ node, problems: told }) => told.map((problem) => `! ${node}: ${problem}`));
  return [table(['NODE', 'ENFORCEMENT', 'STATE'], rows), ...(problems.length > 0 ? ['', ...problems] : [])].join('\n');
}

export function renderEndpoints(endpoints: readonly EndpointSummary[]): string {
  if (endpoints.length === 0) return 'no endpoints';
  const header = ['NODE', 'ID', 'POD', 'INTERFACE', 'ADDRESSES', 'INGRESS', 'EGRESS', 'MODE', 'POLICIES'];
  const reasons = endpoints.flatMap(({ node, takeover }) => (takeover === undefined ? [] : [`! ${node}: ${takeover}`]));
  const rows = table(
    header,
    endpoints.map((one) => [
      one.node,
      String(one.endpointId),
      `${one.pod.namespace}/${one.pod.name}`,
      one.interface,
      one.addresses.join(','),
      isolation(one, 'ingress'),
      isolation(one, 'egress'),
      one.policyEnforcement,
      one.policies.join(',') || '-',
    ]),
  );
  return [rows, ...(reasons.length > 0 ? ['', ...new Set(reasons)] : [])].join('\n');
}

/** "open", "isolated", "audit" (would be isolated), "closed" (nothing programmed yet), "taking over" (as the agent before left it). */
function isolation({ programmed, takeover, isolated, audit }: EndpointSummary, direction: PolicyDirection): string {
  if (!programmed) return takeover === undefined ? 'closed' : 'taking over';
  if (!isolated[direction]) return 'open';
  return audit ? 'audit' : 'isolated';
}

export function renderEndpoint(one: EndpointDetail): string {
  const { pod, node } = one;
  const facts = [
    ['Pod', `${pod.namespace}/${pod.name} (uid ${pod.uid})`],
    ['Node', node],
    ['Endpoint', `${one.endpointId}, policy revision ${one.revision}`],
    ['Interface', `${one.interface} of network ${one.network} (hooks on ${one.interfaces.join(', ')})`],
    ['Addresses', one.addresses.join(', ')],
    ['Network namespace', one.netns],
    ['Ingress, egress', `${isolation(one, 'ingress')}, ${isolation(one, 'egress')}`],
    ...(one.takeover === undefined ? [] : [['Taking over', one.takeover]]),
    ['Policy enforcement', one.policyEnforcement],
    ['Policies', one.policies.join(', ') || 'none selects it'],
    ['Bandwidth', bandwidthLine(one.bandwidth)],
    ['Since', one.createdAt],
  ];
  const width = Math.max(...facts.map(([name = '']) => name.length));
  const counters = one.counters.map((c) => [c.direction, c.reason, String(c.packets), String(c.bytes)]);
  const rules = one.rules.map((c) => [c.direction, ruleText(c.rule), String(c.decisions)]);
  return [
    ...facts.map(([name = '', value = '']) => `${`${name}:`.padEnd(width + 2)}${value}`),
    '',
    table(['DIRECTION', 'REASON', 'PACKETS', 'BYTES'], counters.sort(byText)),
    ...(rules.length === 0 ? [] : ['', table(['DIRECTION', 'RULE', 'DECISIONS'], rules.sort(byText))]),
  ].join('\n');
}

export function renderPolicy(one: EndpointPolicyInfo): string {
  const lines = [`${one.pod.namespace}/${one.pod.name} on ${one.node}, ${one.interface} (${one.addresses.join(', ')})`];
  for (const direction of ['ingress', 'egress'] as const) {
    const by = one.isolatedBy[direction];
    const state = isolation(one, direction);
    lines.push('', `${direction}: ${state}${by.length === 0 || state === 'open' ? '' : `, by ${by.join(', ')}`}`);
    const rules = one.rules.filter((rule) => rule.direction === direction);
    if (rules.length > 0) {
      const word = direction === 'ingress' ? 'FROM' : 'TO';
      lines.push(
        indent(
          table(
            ['RULE', word, 'PORTS'],
            rules.map((r) => [ruleText(r.rule), r.peers, r.ports]),
          ),
        ),
      );
    }
    const entries = one.entries.filter((entry) => entry.direction === direction);
    if (entries.length > 0) {
      const rows = entries.map((e) => [String(e.identity), e.peer, e.ports, ruleText(e.rule)]);
      lines.push(indent('in the kernel:'), indent(table(['IDENTITY', 'PEER', 'PORTS', 'RULE'], rows)));
    }
  }
  if (one.diagnostics.length > 0) lines.push('', ...one.diagnostics.map((text) => `! ${text}`));
  return lines.join('\n');
}

export function renderExplain(answer: ExplainAnswer): string {
  const port = answer.port === undefined ? '' : ` ${answer.port}`;
  const lines = [`${answer.from} → ${answer.to}${port}: ${verdictText(answer.verdict)}`];
  for (const path of answer.paths) {
    lines.push('', `${partyText(path.from)} → ${partyText(path.to)}: ${verdictText(path.verdict)}`);
    lines.push(...sideLines(path.egress), ...sideLines(path.ingress));
  }
  return lines.join('\n');
}

function sideLines(side: DirectionExplanation): string[] {
  const lines = [`  ${side.direction.padEnd(7)}  ${verdictText(side.verdict).padEnd(6)} ${side.summary}`];
  if (side.verdict !== 'allow') {
    for (const rule of side.rules) {
      const name = `${rule.namespace}/${rule.policy} ${side.direction}[${rule.index}]`;
      if (rule.matches) lines.push(`             ${name} allows ${rule.ports}`);
      else lines.push(...rule.reasons.map((reason) => `             ${name}: ${reason}`));
    }
  }
  if (side.kernel?.agrees === false) {
    const told = `${verdictText(side.kernel.verdict)}, ${ruleText(side.kernel.rule)}`;
    lines.push(`             ! the kernel of ${side.kernel.node} says otherwise: ${told}`);
  }
  return lines;
}

function verdictText(verdict: ExplainAnswer['verdict']): string {
  return verdict === 'partly' ? 'some ports' : verdict;
}

/** Columns of fixed width, since lines come one by one. */
export function renderEvent(event: FlowEvent): string {
  const { kind, reason, direction, rule, protocol, node } = event;
  const what = kind === 'drop' ? `drop (${reason})` : kind === 'audit' ? 'audit (would drop)' : 'allow';
  const ends =
    event.source === undefined || event.destination === undefined
      ? `${event.length} bytes, ${protocol}`
      : `${endText(event.source, event.sourcePort)} → ${endText(event.destination, event.destinationPort)} ${protocol}`;
  const pod = event.pod === undefined ? '' : `${direction} of ${event.pod.namespace}/${event.pod.name}`;
  return `${event.time}  ${node}  ${what.padEnd(18)}  ${pod}  ${ends}  ${ruleText(rule)}`;
}

function endText(party: Party, port: number | undefined): string {
  const address = port === undefined ? party.address : withPort(party.address, port);
  if (party.kind === 'pod') return `${party.namespace ?? ''}/${party.name ?? ''} (${address})`;
  return party.kind === 'node' ? `node ${party.name ?? ''} (${address})` : address;
}

function withPort(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

function partyText(party: Party): string {
  return endText(party, undefined);
}

function indent(text: string): string {
  return text.replaceAll(/^/gm, '  ');
}

function byText(a: readonly string[], b: readonly string[]): number {
  return a.join(' ') < b.join(' ') ? -1 : 1;
}
