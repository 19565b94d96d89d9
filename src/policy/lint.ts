/**
 * `sluice policy check`: what is wrong, or probably not meant, in policies that nobody has applied yet. Looks at the given
 * objects only; what selectors should find is judged by the pods and namespaces among them.
 */

import type { Pod } from '../api/kubernetes.ts';
import { formatPrefix, parsePrefix } from '../core/ip.ts';
import { matchesSelector } from '../core/labels.ts';
import { selectorText } from './describe.ts';
import type { Diagnostic } from './diagnostics.ts';
import { ruleCovers, selectorCovers } from './lint-cover.ts';
import { dnsFindings } from './lint-dns.ts';
import { peerFindings, portFindings } from './lint-peers.ts';
import { schemaFaults } from './lint-schema.ts';
import { isNetworkPolicy, lintWorldOf, type LintWorld, type SourceObject, type SourcePolicy } from './lint-world.ts';
import type { PolicyNode, RuleNode } from './node.ts';
import { parsePolicy } from './parse.ts';

/** Every check, and what it finds. docs/reference/cli.md has the same table; a test compares them. */
export const lintCodes = {
  schema: 'The object is not a NetworkPolicy as the API defines it.',
  duplicate: 'Two objects have the same namespace and name; the later one wins.',
  invalid: 'A field has a value that allows nothing.',
  host_bits: 'A CIDR has bits set behind its prefix; they are ignored.',
  empty_block: 'The exceptions leave nothing of an ipBlock.',
  rules_without_type: 'There are rules of a direction that policyTypes does not name; they have no effect.',
  selects_nothing: 'The policy selects no pod of the given files.',
  peer_selects_nothing: 'A peer selects no pod or namespace of the given files.',
  port_not_served: 'No pod concerned declares the port.',
  useless_rule: 'Another rule allows at least the same to at least the same pods.',
  cuts_dns: 'Egress is isolated and no rule lets DNS queries through.',
  dns_without_tcp: 'DNS is allowed over UDP only; long answers need TCP.',
} as const;

export type LintCode = keyof typeof lintCodes;

export interface Finding {
  /** error: the API server refuses it, or it allows nothing. warning: probably not meant. note: good to know. */
  readonly severity: 'error' | 'warning' | 'note';
  readonly code: LintCode;
  readonly file: string;
  readonly line: number;
  readonly namespace: string;
  readonly policy: string;
  readonly field: string;
  readonly message: string;
  readonly remedy: string;
}

/** A finding before it is told where it is. */
export type Remark = Pick<Finding, 'severity' | 'code' | 'field' | 'message' | 'remedy'>;

export interface LintedPolicy {
  readonly source: SourcePolicy;
  readonly node: PolicyNode;
}

export interface LintResult {
  readonly findings: readonly Finding[];
  readonly policies: number;
  readonly pods: number;
}

/** In the order of files and lines. Never throws. */
export function lintPolicies(objects: readonly SourceObject[]): LintResult {
  const malformed = new Set(
    objects.filter((source) => isNetworkPolicy(source.object) && schemaFaults(source.object).length > 0),
  );
  const world = lintWorldOf(objects.filter((source) => !malformed.has(source)));
  const linted = world.policies.map((source) => ({ source, node: parsePolicy(source.policy) }));
  const findings = [
    ...[...malformed].flatMap(schemaFindings),
    ...duplicateFindings(linted),
    ...linted.flatMap((policy) =>
      remarksOn(policy, linted, world).map((remark) => placed(policy.source.source, policy.node, remark)),
    ),
  ];
  const place = ({ file, line }: Finding): number => objects.findIndex((one) => one.file === file && one.line === line);
  findings.sort((a, b) => place(a) - place(b));
  return { findings, policies: world.policies.length + malformed.size, pods: world.pods.length };
}

function remarksOn(policy: LintedPolicy, all: readonly LintedPolicy[], world: LintWorld): Remark[] {
  const { node } = policy;
  const subjects = subjectsOf(node, world.pods);
  return [
    ...node.diagnostics.map(diagnosticRemark),
    ...blockRemarks(policy),
    ...typeRemarks(policy),
    ...subjectRemarks(node, subjects, world),
    ...node.rules.flatMap((rule) => peerFindings(rule, world)),
    ...node.rules.flatMap((rule) => portFindings(rule, subjects, world)),
    ...node.rules.flatMap((rule) => uselessRemarks(policy, rule, all)),
    ...dnsFindings(
      node,
      all.map((one) => one.node),
      world.pods,
    ),
  ];
}

function diagnosticRemark({ code, severity, field, message, remedy }: Diagnostic): Remark {
  return { severity, code: code === 'empty_ip_block' ? 'empty_block' : 'invalid', field, message, remedy };
}

export function subjectsOf(node: PolicyNode, pods: readonly Pod[]): Pod[] {
  const own = pods.filter(({ metadata, spec }) => metadata?.namespace === node.namespace && spec?.hostNetwork !== true);
  return own.filter(({ metadata }) => matchesSelector(node.subject, metadata?.labels));
}

function schemaFindings(source: SourceObject): Finding[] {
  const { namespace = 'default', name = '' } = source.object.metadata ?? {};
  return schemaFaults(source.object).map(({ field, message }) => ({
    ...{
      severity: 'error',
      code: 'schema',
      file: source.file,
      line: source.line,
      namespace,
      policy: name,
      field,
      message,
    },
    remedy: 'kubectl explain networkpolicy.spec --recursive shows the fields',
  }));
}

function duplicateFindings(linted: readonly LintedPolicy[]): Finding[] {
  const first = new Map<string, SourceObject>();
  return linted.flatMap(({ source: { source }, node }) => {
    const key = `${node.namespace}/${node.name}`;
    const before = first.get(key);
    first.set(key, source);
    if (before === undefined) return [];
    const message = `${before.file}:${before.line} holds a policy of the same namespace and name; the later one replaces it`;
    return [
      placed(source, node, {
        severity: 'error',
        code: 'duplicate',
        field: 'metadata.name',
        message,
        remedy: 'rename one',
      }),
    ];
  });
}

function placed(source: SourceObject, node: PolicyNode, remark: Remark): Finding {
  return { ...remark, file: source.file, line: source.line, namespace: node.namespace, policy: node.name };
}

/** Of the object as written: the parser has cleared host bits already. */
function blockRemarks({ source }: LintedPolicy): Remark[] {
  const spec = source.policy.spec ?? {};
  const lists = [
    ...(spec.ingress ?? []).map((rule, index) => [`spec.ingress[${index}].from`, rule.from ?? []] as const),
    ...(spec.egress ?? []).map((rule, index) => [`spec.egress[${index}].to`, rule.to ?? []] as const),
  ];
  const hostBits = lists.flatMap(([list, peers]) =>
    peers.flatMap((peer, index) => {
      const field = `${list}[${index}].ipBlock`;
      const { cidr = '', except = [] } = peer.ipBlock ?? {};
      return [
        hostBitsRemark(`${field}.cidr`, cidr),
        ...(except ?? []).map((text, i) => hostBitsRemark(`${field}.except[${i}]`, text)),
      ];
    }),
  );
  return hostBits.filter((remark) => remark !== undefined);
}

function hostBitsRemark(field: string, text: string): Remark | undefined {
  const prefix = parsePrefix(text);
  const address = parsePrefix(`${text.split('/')[0] ?? ''}/${text.includes(':') ? 128 : 32}`);
  if (prefix === undefined || address === undefined || prefix.address.value === address.address.value) return undefined;
  const meant = formatPrefix(prefix);
  const message = `${text} has bits set behind its prefix; it means ${meant}`;
  return { severity: 'warning', code: 'host_bits', field, message, remedy: `write ${meant}` };
}

function typeRemarks({ source, node }: LintedPolicy): Remark[] {
  const { policyTypes, ingress, egress } = source.policy.spec ?? {};
  const remarks: Remark[] = [];
  for (const [direction, rules, type] of [
    ['ingress', ingress, 'Ingress'],
    ['egress', egress, 'Egress'],
  ] as const) {
    if (node.isolates[direction] || (rules ?? undefined) === undefined) continue;
    const none = (policyTypes ?? []).length === 0;
    const what = none ? 'egress: [] without policyTypes isolates nothing' : `policyTypes does not name ${type}`;
    const message = `${what}; spec.${direction} has no effect`;
    remarks.push({
      severity: 'warning',
      code: 'rules_without_type',
      field: `spec.${direction}`,
      message,
      remedy: `add ${type} to spec.policyTypes`,
    });
  }
  return remarks;
}

function subjectRemarks(node: PolicyNode, subjects: readonly Pod[], world: LintWorld): Remark[] {
  if (subjects.length > 0 || world.pods.length === 0) return [];
  const wanted = selectorText(node.subject);
  const who = wanted === '' ? 'there is no pod' : `no pod has ${wanted}`;
  const message = `${who} in namespace ${node.namespace} of the given files; the policy protects nothing`;
  const remedy = 'correct the selector or metadata.namespace, or give the files of its pods too';
  return [{ severity: 'warning', code: 'selects_nothing', field: 'spec.podSelector', message, remedy }];
}

function uselessRemarks(policy: LintedPolicy, rule: RuleNode, all: readonly LintedPolicy[]): Remark[] {
  const rank = (one: LintedPolicy, index: number): number => all.indexOf(one) * 10_000 + index;
  for (const other of all) {
    if (other.node.namespace !== policy.node.namespace || !selectorCovers(other.node.subject, policy.node.subject))
      continue;
    for (const wide of other.node.rules) {
      if (wide === rule || !ruleCovers(wide, rule)) continue;
      // Of two that say the same, the later one is useless.
      const mutual = ruleCovers(rule, wide) && selectorCovers(policy.node.subject, other.node.subject);
      if (mutual && rank(other, wide.index) > rank(policy, rule.index)) continue;
      const name = other === policy ? '' : ` of ${other.node.name}`;
      const message = `${ruleField(wide)}${name} allows all of this already`;
      return [
        {
          severity: 'warning',
          code: 'useless_rule',
          field: ruleField(rule),
          message,
          remedy: 'remove the rule, or narrow the other one',
        },
      ];
    }
  }
  return [];
}

export function ruleField(rule: RuleNode): string {
  return `spec.${rule.direction}[${rule.index}]`;
}
