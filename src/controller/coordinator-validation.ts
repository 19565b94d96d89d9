import { forbidden, invalid, notSupported, type FieldError } from '../api/field-error.ts';
import type { CoordinatorSpec, MultusConfigSpec } from '../api/spidermultusconfig.ts';
import { parseIp, parsePrefix, type IpFamily } from '../core/ip.ts';

/** The rules for the coordinator's part of a SpiderMultusConfig. */

const modes = ['auto', 'underlay', 'overlay', 'disabled', 'disable'];
const podCidrTypes = ['auto', 'cluster', 'calico', 'cilium', 'none'];

export function validateCoordinator(spec: MultusConfigSpec): FieldError[] {
  const { coordinator } = spec;
  if (coordinator === undefined) return [];
  return [
    ...validateEnums(coordinator),
    ...validateNetworks(coordinator),
    ...validateNumbers(coordinator),
    ...validateMacPrefix(coordinator, spec.cniType),
  ];
}

function validateEnums({ mode, podCIDRType }: CoordinatorSpec): FieldError[] {
  const errors: FieldError[] = [];
  if (mode !== undefined && !modes.includes(mode)) errors.push(notSupported('spec.coordinator.mode', mode, modes));
  if (podCIDRType !== undefined && !podCidrTypes.includes(podCIDRType)) {
    errors.push(notSupported('spec.coordinator.podCIDRType', podCIDRType, podCidrTypes));
  }
  return errors;
}

function familyOf(text: string): IpFamily | undefined {
  return parseIp(text)?.family ?? parsePrefix(text)?.address.family;
}

function validateNetworks(coordinator: CoordinatorSpec): FieldError[] {
  const errors: FieldError[] = [];
  for (const [index, text] of (coordinator.hijackCIDR ?? []).entries()) {
    if (familyOf(text) !== undefined) continue;
    errors.push(invalid(`spec.coordinator.hijackCIDR[${index}]`, text, 'must be an IP address or a CIDR'));
  }
  for (const [index, route] of (coordinator.policyRoutes ?? []).entries()) {
    const field = `spec.coordinator.policyRoutes[${index}]`;
    const gateway = parseIp(route.gw);
    if (familyOf(route.dst) === undefined)
      errors.push(invalid(`${field}.dst`, route.dst, 'must be an IP address or a CIDR'));
    else if (gateway === undefined) errors.push(invalid(`${field}.gw`, route.gw, 'must be an IP address'));
    else if (gateway.family !== familyOf(route.dst)) {
      errors.push(invalid(field, `${route.dst} via ${route.gw}`, 'dst and gw must use the same IP family'));
    }
  }
  const { vethLinkAddress } = coordinator;
  if (vethLinkAddress && parseIp(vethLinkAddress) === undefined) {
    errors.push(
      invalid('spec.coordinator.vethLinkAddress', vethLinkAddress, 'must be an IP address, such as 169.254.100.1'),
    );
  }
  return errors;
}

function validateNumbers({ txQueueLen = 0, podRPFilter = 0, vethMTU = 1 }: CoordinatorSpec): FieldError[] {
  const errors: FieldError[] = [];
  if (txQueueLen < 0) errors.push(invalid('spec.coordinator.txQueueLen', txQueueLen, 'must be 0 or more'));
  if (podRPFilter > 2)
    errors.push(invalid('spec.coordinator.podRPFilter', podRPFilter, 'must be 0, 1, 2 or negative (left alone)'));
  if (vethMTU < 1) errors.push(invalid('spec.coordinator.vethMTU', vethMTU, 'must be 1 or more'));
  return errors;
}

function validateMacPrefix({ podMACPrefix }: CoordinatorSpec, cniType: string | undefined): FieldError[] {
  if (!podMACPrefix) return [];
  const field = 'spec.coordinator.podMACPrefix';
  if (cniType === 'ipvlan') {
    return [
      forbidden(field, "an ipvlan interface always has its parent's MAC address, remove podMACPrefix or use macvlan"),
    ];
  }
  if (!/^[0-9a-fA-F]{2}:[0-9a-fA-F]{2}$/.test(podMACPrefix)) {
    return [invalid(field, podMACPrefix, 'not a valid MAC prefix, write two bytes in hex such as 0a:1b')];
  }
  if (parseInt(podMACPrefix.slice(0, 2), 16) % 2 === 0) return [];
  return [invalid(field, podMACPrefix, 'not a unicast MAC: the lowest bit of the first byte must be 0, such as 0a:1b')];
}
