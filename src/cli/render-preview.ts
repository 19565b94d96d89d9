/** `sluice policy preview` and `sluice policy check` for people. Pure. */
import type { ConnectionChange, FlowChange, FlowSide, Party, PreviewAnswer } from '../api/agent-api.ts';
import { ruleText } from '../policy/describe.ts';
import type { Finding, LintResult } from '../policy/lint.ts';
import type { FileFault } from './manifest-files.ts';

export interface MergedPreview extends PreviewAnswer {
  /** The nodes that told of their connections. */
  readonly nodes: readonly string[];
}

export function renderPreview(answer: MergedPreview): string {
  const policies = answer.policies.map(({ namespace, name, change }) => `${change} NetworkPolicy ${namespace}/${name}`);
  const isolation = answer.isolation.map(({ pods, direction, isolated }) => {
    return `  ${direction} ${isolated ? 'becomes isolated' : 'is no longer isolated'}: ${names(pods)}`;
  });
  const examined = `${answer.connectionsExamined} known connections of ${answer.nodes.join(', ')}`;
  return [
    ...policies,
    ...section('Isolation', isolation),
    ...section('Flows that would change', [...answer.flows.map(flowLine), ...omitted(answer.flowsOmitted)], 'none'),
    ...section(`Connections that would change (of ${examined})`, answer.connections.map(connectionLine), 'none'),
    ...section(
      'Problems',
      answer.diagnostics.map((text) => `  ${text}`),
    ),
    '',
    'Nothing was applied.',
  ].join('\n');
}

function section(title: string, lines: readonly string[], empty?: string): string[] {
  if (lines.length === 0) return empty === undefined ? [] : ['', `${title}: ${empty}`];
  return ['', `${title}:`, ...lines];
}

function omitted(count: number): string[] {
  return count === 0 ? [] : [`  … and ${count} more`];
}

function flowLine({ change, from, to, ports, family }: FlowChange): string {
  const only = family === undefined ? '' : ` (IPv${family})`;
  return `  ${change.padEnd(5)}  ${sideText(from)} → ${sideText(to)}: ${ports}${only}`;
}

function sideText(side: FlowSide): string {
  switch (side.kind) {
    case 'pods':
      return names(side.pods);
    case 'nodes':
      return `node ${names(side.nodes)}`;
    case 'outside': {
      const where = side.prefix === undefined ? 'outside the cluster' : `${side.prefix} outside the cluster`;
      return side.except.length === 0 ? where : `${where} except ${side.except.join(', ')}`;
    }
  }
}

const namesShown = 6;

function names(all: readonly string[]): string {
  const more = all.length > namesShown ? ` and ${all.length - namesShown} more` : '';
  return `${all.slice(0, namesShown).join(', ')}${more}`;
}

function connectionLine(change: ConnectionChange): string {
  const { node, from, to, protocol, sourcePort, destinationPort, direction, rule } = change;
  const ends = `${endText(from, sourcePort)} → ${endText(to, destinationPort)} ${protocol}`;
  return `  ${change.change.padEnd(5)}  ${ends} (${direction} on ${node}, now by ${ruleText(rule)})`;
}

function endText({ kind, address, namespace = '', name = '' }: Party, port: number): string {
  const at = address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
  return kind === 'pod' ? `${namespace}/${name} (${at})` : at;
}

export function renderCheck(result: LintResult, faults: readonly FileFault[]): string {
  const lines = [
    ...faults.map(({ file, line, message }) => `${file}:${line}: error: ${message}`),
    ...result.findings.map(findingLine),
  ];
  const count = (severity: Finding['severity']): number =>
    result.findings.filter((finding) => finding.severity === severity).length;
  const errors = count('error') + faults.length;
  const sums = `${errors} errors, ${count('warning')} warnings, ${count('note')} notes`;
  const world =
    result.pods === 0
      ? 'no pods in the files: selectors and ports were not checked'
      : `${result.pods} pods or workloads`;
  return [...lines, ...(lines.length === 0 ? [] : ['']), `${result.policies} policies, ${world}: ${sums}`].join('\n');
}

function findingLine(finding: Finding): string {
  const { file, line, severity, namespace, policy, field, message, remedy, code } = finding;
  return `${file}:${line}: ${severity}: NetworkPolicy ${namespace}/${policy}, ${field}: ${message} (${remedy}) [${code}]`;
}
