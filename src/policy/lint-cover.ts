/**
 * Whether one selector, peer or rule says at least what another says, by construction and so in every cluster. "No" may
 * mean "not for certain".
 */

import { parsePrefix, prefixContains, makePrefix, bitsOf, type IpPrefix } from '../core/ip.ts';
import type { LabelSelector } from '../core/labels.ts';
import { numericPorts } from './describe.ts';
import type { PeerNode, RuleNode } from './node.ts';
import type { PortNode } from './port.ts';
import { PortSet } from './port-set.ts';

interface Requirement {
  readonly key: string;
  readonly operator: string;
  readonly values: readonly string[];
}

/** Everything that `narrow` selects, `wide` selects too. */
export function selectorCovers(wide: LabelSelector, narrow: LabelSelector): boolean {
  const given = requirementsOf(narrow);
  return requirementsOf(wide).every((wanted) => given.some((one) => implies(one, wanted)));
}

function requirementsOf({ matchLabels, matchExpressions }: LabelSelector): Requirement[] {
  return [
    ...Object.entries(matchLabels ?? {}).map(([key, value]) => ({ key, operator: 'In', values: [value] })),
    ...(matchExpressions ?? []).map(({ key, operator, values }) => ({ key, operator, values: values ?? [] })),
  ];
}

function implies(given: Requirement, wanted: Requirement): boolean {
  if (given.key !== wanted.key) return false;
  switch (wanted.operator) {
    case 'In':
      return given.operator === 'In' && given.values.every((value) => wanted.values.includes(value));
    case 'Exists':
      return given.operator === 'In' || given.operator === 'Exists';
    case 'NotIn':
      if (given.operator === 'DoesNotExist') return true;
      if (given.operator === 'NotIn') return wanted.values.every((value) => given.values.includes(value));
      return given.operator === 'In' && !given.values.some((value) => wanted.values.includes(value));
    case 'DoesNotExist':
      return given.operator === 'DoesNotExist';
    default:
      return false;
  }
}

/** Both rules belong to policies of one namespace and isolate the same direction. */
export function ruleCovers(wide: RuleNode, narrow: RuleNode): boolean {
  return wide.direction === narrow.direction && peersCover(wide, narrow) && portsCover(wide, narrow);
}

function peersCover(wide: RuleNode, narrow: RuleNode): boolean {
  if (wide.peers === undefined) return true;
  if (narrow.peers === undefined) return false;
  return narrow.peers.every((peer) => wide.peers?.some((one) => peerCovers(one, peer)) === true);
}

function portsCover(wide: RuleNode, narrow: RuleNode): boolean {
  if (wide.ports === undefined) return true;
  if (narrow.ports === undefined) return false;
  const numeric = PortSet.union(wide.ports.map(numericPorts));
  return narrow.ports.every((port) =>
    port.kind === 'named'
      ? wide.ports?.some((one) => coversName(one, port)) === true
      : numeric.covers(numericPorts(port)),
  );
}

function coversName(wide: PortNode, { protocol, name }: PortNode & { readonly kind: 'named' }): boolean {
  if (wide.protocol !== protocol) return false;
  return wide.kind === 'all' || (wide.kind === 'named' && wide.name === name);
}

function peerCovers(wide: PeerNode, narrow: PeerNode): boolean {
  if (wide.kind === 'prefix') return narrow.kind === 'prefix' && blockCovers(wide, narrow);
  if (narrow.kind === 'prefix' || !selectorCovers(wide.podSelector, narrow.podSelector)) return false;
  if (wide.namespaceSelector === undefined) return wide.namespace === narrow.namespace && wide.namespace !== undefined;
  // The API server gives every namespace this label.
  const own = { matchLabels: { 'kubernetes.io/metadata.name': narrow.namespace ?? '' } };
  return selectorCovers(wide.namespaceSelector, narrow.namespaceSelector ?? own);
}

type Block = PeerNode & { readonly kind: 'prefix' };

function blockCovers(wide: Block, narrow: Block): boolean {
  const [outer, inner] = [parsePrefix(wide.cidr), parsePrefix(narrow.cidr)];
  if (outer === undefined || inner === undefined || !prefixContains(outer, inner)) return false;
  const narrowHoles = prefixesOf(narrow.except);
  return prefixesOf(wide.except)
    .filter((hole) => prefixContains(inner, hole) || prefixContains(hole, inner))
    .every((hole) => narrowHoles.some((own) => prefixContains(own, hole)));
}

/** Whether the exceptions leave nothing of the block. */
export function isBlockEmpty({ cidr, except }: Block): boolean {
  const prefix = parsePrefix(cidr);
  return prefix !== undefined && isCovered(prefix, prefixesOf(except));
}

function isCovered(prefix: IpPrefix, holes: readonly IpPrefix[]): boolean {
  if (holes.some((hole) => prefixContains(hole, prefix))) return true;
  const inside = holes.filter((hole) => prefixContains(prefix, hole));
  const { address, prefixLen } = prefix;
  if (inside.length === 0 || prefixLen === bitsOf(address.family)) return false;
  const half = 1n << BigInt(bitsOf(address.family) - prefixLen - 1);
  const upper = { family: address.family, value: address.value + half };
  return isCovered(makePrefix(address, prefixLen + 1), inside) && isCovered(makePrefix(upper, prefixLen + 1), inside);
}

function prefixesOf(texts: readonly string[]): IpPrefix[] {
  return texts.flatMap((text) => parsePrefix(text) ?? []);
}
