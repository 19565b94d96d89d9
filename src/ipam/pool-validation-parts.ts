import { invalid, required, notSupported, type FieldError } from '../api/field-error.ts';
import type { PoolSpec } from '../api/spiderippool.ts';
import type { AddressSetKind, AddressSetSpec } from './address-set-validation.ts';
import { formatPrefix, parseIp, parsePrefix, prefixContainsIp, type IpPrefix } from '../core/ip.ts';
import { isSelectorOperator, selectorOperators, type LabelSelector } from '../core/labels.ts';

/** The rules for a pool's routes and selectors. */

export function validateRoutes(spec: AddressSetSpec, subnet: IpPrefix, kind: AddressSetKind): FieldError[] {
  const errors: FieldError[] = [];
  const seen = new Set<string>();
  for (const [index, route] of (spec.routes ?? []).entries()) {
    const field = `spec.routes[${index}]`;
    errors.push(...validateDestination(`${field}.dst`, route.dst, subnet, seen));
    const gateway = parseIp(route.gw);
    if (gateway === undefined) {
      errors.push(invalid(`${field}.gw`, route.gw, 'invalid IP address, write it like 10.6.0.1 or fd00::1'));
    } else if (!prefixContainsIp(subnet, gateway)) {
      const detail = `not pertains to the 'spec.subnet' ${spec.subnet} of ${kind}, use an address of that subnet`;
      errors.push(invalid(`${field}.gw`, route.gw, detail));
    }
  }
  return errors;
}

function validateDestination(field: string, dst: string, subnet: IpPrefix, seen: Set<string>): FieldError[] {
  const prefix = parsePrefix(dst);
  const { family } = subnet.address;
  if (prefix === undefined || prefix.address.family !== family) {
    const example = family === 6 ? 'fd00:1::/64' : '10.7.0.0/16';
    return [invalid(field, dst, `invalid CIDR format in IPv${family} '${dst}', write it as ${example}`)];
  }
  if (prefix.prefixLen === 0)
    return [invalid(field, dst, "please specify 'spec.gateway' to configure the default route")];
  const key = formatPrefix(prefix);
  if (seen.has(key)) return [invalid(field, dst, 'duplicate route with the same dst, remove one of the two')];
  seen.add(key);
  return [];
}

export function validateSelectors(spec: PoolSpec): FieldError[] {
  const errors: FieldError[] = [];
  if (spec.podAffinity !== undefined && isEmptySelector(spec.podAffinity)) {
    const detail = 'empty podAffinity is invalid for SpiderIPPool, remove it or name a label';
    errors.push(invalid('spec.podAffinity', spec.podAffinity, detail));
  }
  const selectors = [
    ['spec.podAffinity', spec.podAffinity],
    ['spec.namespaceAffinity', spec.namespaceAffinity],
    ['spec.nodeAffinity', spec.nodeAffinity],
  ] as const;
  for (const [field, selector] of selectors) errors.push(...validateSelector(field, selector));
  return errors;
}

function isEmptySelector(selector: LabelSelector): boolean {
  return Object.keys(selector.matchLabels ?? {}).length === 0 && (selector.matchExpressions ?? []).length === 0;
}

/** k8s.io/apimachinery/pkg/apis/meta/v1/validation, ValidateLabelSelectorRequirement. */
function validateSelector(field: string, selector: LabelSelector | undefined): FieldError[] {
  const errors: FieldError[] = [];
  for (const [key, value] of Object.entries(selector?.matchLabels ?? {})) {
    errors.push(...validateLabelKey(`${field}.matchLabels`, key), ...validateLabelValue(`${field}.matchLabels`, value));
  }
  for (const [index, requirement] of (selector?.matchExpressions ?? []).entries()) {
    const at = `${field}.matchExpressions[${index}]`;
    const values = requirement.values ?? [];
    if (!isSelectorOperator(requirement.operator)) {
      errors.push(notSupported(`${at}.operator`, requirement.operator, selectorOperators));
    } else if (requirement.operator.endsWith('In') && values.length === 0) {
      errors.push(required(`${at}.values`, "must be specified when `operator` is 'In' or 'NotIn'"));
    } else if (!requirement.operator.endsWith('In') && values.length > 0) {
      const detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
      errors.push({ kind: 'forbidden', field: `${at}.values`, detail });
    }
    errors.push(...validateLabelKey(`${at}.key`, requirement.key));
    for (const value of values) errors.push(...validateLabelValue(`${at}.values`, value));
  }
  return errors;
}

function validateLabelKey(field: string, key: string): FieldError[] {
  const [name, prefix, ...rest] = key.split('/').reverse();
  const goodName = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/.test(name ?? '');
  const goodPrefix = prefix === undefined || /^(?=.{1,253}$)[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(prefix);
  if (goodName && goodPrefix && rest.length === 0) return [];
  return [
    invalid(field, key, 'a label key is [prefix/]name: at most 63 letters, digits, "-", "_", "." after a DNS prefix'),
  ];
}

function validateLabelValue(field: string, value: string): FieldError[] {
  if (/^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$/.test(value)) return [];
  return [invalid(field, value, 'a label value has at most 63 letters, digits, "-", "_", "."')];
}
