/** Ports of policies: protocol numbers, ranges as port prefixes, names as what the destination calls them. */

import type { NamedPort } from './identity.ts';

/** IANA protocol numbers of what a NetworkPolicy may name. */
const protocolNumbers: Readonly<Record<string, number>> = { TCP: 6, UDP: 17, SCTP: 132 };

export function protocolNumber(name: string): number | undefined {
  return Object.hasOwn(protocolNumbers, name) ? protocolNumbers[name] : undefined;
}

/** Ports that agree in their first `portPrefixLen` of 16 bits; length 0 is every port, 16 one port. */
export interface PortPrefix {
  readonly port: number;
  readonly portPrefixLen: number;
}

/** One element of a rule's `ports`. */
export type PortNode =
  | { readonly kind: 'all'; readonly protocol: number }
  | { readonly kind: 'range'; readonly protocol: number; readonly prefixes: readonly PortPrefix[] }
  | { readonly kind: 'named'; readonly protocol: number; readonly name: string };

/** What an entry carries: protocol 0 is any protocol, and then any port. */
export interface PortMatch extends PortPrefix {
  readonly protocol: number;
}

export const everyPort: PortMatch = Object.freeze({ protocol: 0, port: 0, portPrefixLen: 0 });

/**
 * The fewest aligned power-of-two blocks that make up first … last (inclusive), in order: at most 30 for any range,
 * where one entry per port would need 65,535.
 */
export function portPrefixes(first: number, last: number): PortPrefix[] {
  const prefixes: PortPrefix[] = [];
  let port = first;
  while (port <= last) {
    let bits = 0;
    while (bits < 16 && port % 2 ** (bits + 1) === 0 && port + 2 ** (bits + 1) - 1 <= last) bits++;
    prefixes.push({ port, portPrefixLen: 16 - bits });
    port += 2 ** bits;
  }
  return prefixes;
}

/** The port numbers that the node stands for on a destination with these named ports; none for a name it lacks. */
export function resolvePort(node: PortNode, destination: readonly NamedPort[]): PortMatch[] {
  const { protocol } = node;
  switch (node.kind) {
    case 'all':
      return [{ protocol, port: 0, portPrefixLen: 0 }];
    case 'range':
      return node.prefixes.map((prefix) => ({ protocol, ...prefix }));
    case 'named':
      return destination
        .filter((named) => named.name === node.name && named.protocol === protocol)
        .map(({ port }) => ({ protocol, port, portPrefixLen: 16 }));
  }
}
