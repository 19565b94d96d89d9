import { forbidden, invalid, notSupported, required, type FieldError } from '../api/field-error.ts';
import type { SpiderCoordinator } from '../api/spidercoordinator.ts';
import type { CoordinatorSpec, MultusConfigSpec } from '../api/spidermultusconfig.ts';
import { parseIp, parsePrefix, type IpFamily } from '../core/ip.ts';

/** The rules for a coordinator's settings, in a SpiderMultusConfig and in a SpiderCoordinator. */

const modes = ['auto', 'underlay', 'overlay', 'disabled', 'disable'];
const podCidrTypes = ['auto', 'cluster', 'calico', 'cilium', 'none'];

export function validateCoordinator(spec: MultusConfigSpec): FieldError[] {
  if (spec.coordinator === undefined) return [];
  return validateSettings(spec.coordinator, 'spec.coordinator', spec.cniType);
}

/** Here the type of the pods' CIDRs must be said. */
export function validateSpiderCoordinator({ spec = {} }: SpiderCoordinator): FieldError[] {
  const missing = spec.podCIDRType === undefined || spec.podCIDRType === '';
  const detail = `PodCIDRType is not allowed to be empty, it is one of ${podCidrTypes.join(', ')}`;
  const errors = validateSettings(missing ? { ...spec, podCIDRType: undefined } : spec, 'spec');
  return missing ? [required('spec.podCIDRType', detail), ...errors] : errors;
}

function validateSettings(settings: CoordinatorSpec, at: string, cniType?: string): FieldError[] {
  return [
    ...validateEnums(settings, at),
    ...validateNetworks(settings, at),
    ...validateNumbers(settings, at),
    ...validateMacPrefix(settings, at, cniType),
  ];
}

function validateEnums({ mode, podCIDRType }: CoordinatorSpec, at: string): FieldError[] {
  const errors: FieldError[] = [];
  if (mode !== undefined && !modes.includes(mode)) errors.push(notSupported(`${at}.mode`, mode, modes));
  if (podCIDRType !== undefined && !podCidrTypes.includes(podCIDRType)) {
    errors.push(notSupported(`${at}.podCIDRType`, podCIDRType, podCidrTypes));
  }
  return errors;
}

function familyOf(text: string): IpFamily | undefined {
  return parseIp(text)?.family ?? parsePrefix(text)?.address.family;
}

function validateNetworks(coordinator: CoordinatorSpec, at: string): FieldError[] {
  const errors: FieldError[] = [];
  for (const [index, text] of (coordinator.hijackCIDR ?? []).entries()) {
    if (familyOf(text) !== undefined) continue;
    errors.push(invalid(`${at}.hijackCIDR[${index}]`, text, 'must be an IP address or a CIDR'));
  }
  for (const [index, route] of (coordinator.policyRoutes ?? []).entries()) {
    const field = `${at}.policyRoutes[${index}]`;
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
    errors.push(invalid(`${at}.vethLinkAddress`, vethLinkAddress, 'must be an IP address, such as 169.254.100.1'));
  }
  return errors;
}

/** As the plugin wants them (src/cni/coordinator-config.ts): what it refuses would fail the ADD of each pod. */
function validateNumbers(settings: CoordinatorSpec, at: string): FieldError[] {
  const { txQueueLen = 0, podRPFilter = 0, vethMTU = 1, hostRuleTable = 1 } = settings;
  const errors: FieldError[] = [];
  if (txQueueLen < 0) errors.push(invalid(`${at}.txQueueLen`, txQueueLen, 'must be 0 or more'));
  if (podRPFilter > 2)
    errors.push(invalid(`${at}.podRPFilter`, podRPFilter, 'must be 0, 1, 2 or negative (left alone)'));
  if (vethMTU < 1 || vethMTU > 65_535)
    errors.push(invalid(`${at}.vethMTU`, vethMTU, 'must be 1 or more, at most 65535'));
  if (hostRuleTable < 1 || hostRuleTable > 4_294_967_295) {
    const detail = 'must be the number of a routing table, 1 to 4294967295; leave it out for 500';
    errors.push(invalid(`${at}.hostRuleTable`, hostRuleTable, detail));
  }
  return errors;
}

function validateMacPrefix({ podMACPrefix }: CoordinatorSpec, at: string, cniType: string | undefined): FieldError[] {
  if (!podMACPrefix) return [];
  const field = `${at}.podMACPrefix`;
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
