/** NetworkPolicy, EndpointSlice and Endpoints. */
import { age } from '../age.ts';
import { formatPrefix, ipToPrefix, parseIp, parsePrefix } from '../../../core/ip.ts';
import { numberAt, objectAt, objectsAt, setDefault, stringAt, stringsAt, textOf } from '../json.ts';
import type { Json, JsonObject, KubeObject } from '../json.ts';
import { portName } from '../names.ts';
import type { Behaviour } from '../resource.ts';
import { field, type FieldError } from '../status.ts';
import { columns, listOr } from './columns.ts';
import { portNumber, validateProtocol } from './pod-validation.ts';
import { selectorText, validateSelector } from './selector.ts';

export const networkPolicy: Behaviour = {
  generation: true,
  columns: columns('Name', 'Pod-Selector', 'Age'),
  cells: (object, nowMs) => [
    object.metadata.name,
    selectorText(objectAt(object, 'spec', 'podSelector')),
    age(object.metadata.creationTimestamp, nowMs),
  ],
  defaults: (object) => {
    const spec = objectAt(object, 'spec');
    if (spec === undefined) return;
    setDefault(spec, 'podSelector', {});
    const egress = objectsAt(spec, 'egress').length > 0;
    setDefault(spec, 'policyTypes', egress ? ['Ingress', 'Egress'] : ['Ingress']);
    for (const rule of [...objectsAt(spec, 'ingress'), ...objectsAt(spec, 'egress')]) {
      for (const port of objectsAt(rule, 'ports')) setDefault(port, 'protocol', 'TCP');
    }
  },
  validate: validatePolicy,
  warnings: hostBitWarnings,
};

function validatePolicy(object: KubeObject): FieldError[] {
  const spec = objectAt(object, 'spec');
  const errors = validateSelector(objectAt(spec, 'podSelector'), 'spec.podSelector');
  for (const [direction, peers] of [
    ['ingress', 'from'],
    ['egress', 'to'],
  ] as const) {
    for (const [index, rule] of objectsAt(spec, direction).entries()) {
      errors.push(...validateRule(rule, peers, `spec.${direction}[${index}]`));
    }
  }
  const types = stringsAt(spec, 'policyTypes');
  if (types.length > 2) {
    errors.push(field.invalid('spec.policyTypes', types, 'may not specify more than two policyTypes'));
    return errors;
  }
  for (const [index, type] of types.entries()) {
    if (type !== 'Ingress' && type !== 'Egress') {
      errors.push(field.notSupported(`spec.policyTypes[${index}]`, type, ['Egress', 'Ingress']));
    }
  }
  return errors;
}

function validateRule(rule: JsonObject, peers: string, path: string): FieldError[] {
  return [
    ...objectsAt(rule, 'ports').flatMap((port, index) => validatePolicyPort(port, `${path}.ports[${index}]`)),
    ...objectsAt(rule, peers).flatMap((peer, index) => validatePeer(peer, `${path}.${peers}[${index}]`)),
  ];
}

function validatePolicyPort(port: JsonObject, path: string): FieldError[] {
  const errors = validateProtocol(port, path);
  const [from, end] = [port.port, numberAt(port, 'endPort')];
  if (typeof from === 'number') errors.push(...portNumber(from, `${path}.port`));
  else if (typeof from === 'string')
    errors.push(...portName(from).map((wrong) => field.invalid(`${path}.port`, from, wrong)));
  if (end === undefined) return errors;
  if (from === undefined)
    errors.push(field.invalid(`${path}.endPort`, end, 'may not be specified when `port` is not specified'));
  else if (typeof from === 'string') {
    errors.push(field.invalid(`${path}.endPort`, end, 'may not be specified when `port` is non-numeric'));
  } else if (typeof from === 'number') {
    // The value shown is the port's: so does the real one.
    if (end < from) errors.push(field.invalid(`${path}.endPort`, from, 'must be greater than or equal to `port`'));
    errors.push(...portNumber(end, `${path}.endPort`));
  }
  return errors;
}

function validatePeer(peer: JsonObject, path: string): FieldError[] {
  const block = objectAt(peer, 'ipBlock');
  const selectors = ['podSelector', 'namespaceSelector'].filter((name) => objectAt(peer, name) !== undefined);
  const errors = selectors.flatMap((name) => validateSelector(objectAt(peer, name), `${path}.${name}`));
  if (block === undefined && selectors.length === 0) return [field.required(path, 'must specify a peer')];
  if (block !== undefined && selectors.length > 0) {
    return [field.forbidden(path, 'may not specify both ipBlock and another peer')];
  }
  return block === undefined ? errors : [...errors, ...validateBlock(block, `${path}.ipBlock`)];
}

const notCidr = 'must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)';

function validateBlock(block: JsonObject, path: string): FieldError[] {
  const cidr = stringAt(block, 'cidr') ?? '';
  if (cidr === '') return [field.required(`${path}.cidr`)];
  const outer = parsePrefix(cidr);
  if (outer === undefined) return [field.invalid(`${path}.cidr`, cidr, notCidr)];
  return stringsAt(block, 'except').flatMap((text, index) => {
    const at = `${path}.except[${index}]`;
    const inner = parsePrefix(text);
    if (inner === undefined) return [field.invalid(at, text, notCidr)];
    const hostBits = BigInt((outer.address.family === 4 ? 32 : 128) - outer.prefixLen);
    const inside =
      inner.address.family === outer.address.family &&
      inner.prefixLen > outer.prefixLen &&
      inner.address.value >> hostBits === outer.address.value >> hostBits;
    return inside ? [] : [field.invalid(at, text, `must be a strict subset of \`cidr\``)];
  });
}

/** As 1.33 and later warn: the prefix is taken without the bits, which may not be what was meant. */
function hostBitWarnings(object: KubeObject): string[] {
  const spec = objectAt(object, 'spec');
  return (['ingress', 'egress'] as const).flatMap((direction) =>
    objectsAt(spec, direction).flatMap((rule, index) => {
      const list = direction === 'ingress' ? 'from' : 'to';
      return objectsAt(rule, list).flatMap((peer, at) => {
        const path = `spec.${direction}[${index}].${list}[${at}].ipBlock`;
        const block = objectAt(peer, 'ipBlock');
        const excepts = stringsAt(block, 'except').map((text, i) => [text, `${path}.except[${i}]`] as const);
        return [[stringAt(block, 'cidr') ?? '', `${path}.cidr`] as const, ...excepts].flatMap(ambiguity);
      });
    }),
  );
}

function ambiguity([text, path]: readonly [text: string, path: string]): string[] {
  const prefix = parsePrefix(text);
  const address = parseIp(text.slice(0, text.indexOf('/')));
  if (prefix === undefined || address === undefined || address.value === prefix.address.value) return [];
  const [network, host] = [formatPrefix(prefix), formatPrefix(ipToPrefix(address))];
  return [`${path}: CIDR value "${text}" is ambiguous in this context (should be "${network}" or "${host}"?)`];
}

export const endpointSlice: Behaviour = {
  generation: true,
  columns: columns('Name', 'AddressType', 'Ports', 'Endpoints', 'Age'),
  cells: (object, nowMs) => [
    object.metadata.name,
    stringAt(object, 'addressType') ?? '',
    listOr(few(objectsAt(object, 'ports').map((port) => textOf(port.port ?? '*'))), '<unset>'),
    listOr(few(objectsAt(object, 'endpoints').flatMap((item) => stringsAt(item, 'addresses'))), '<unset>'),
    age(object.metadata.creationTimestamp, nowMs),
  ],
  defaults: (object) => {
    for (const port of objectsAt(object, 'ports')) {
      setDefault(port, 'name', '');
      setDefault(port, 'protocol', 'TCP');
    }
  },
  validate: (object) => {
    const type = stringAt(object, 'addressType') ?? '';
    if (type === '') return [field.required('addressType')];
    return ['IPv4', 'IPv6', 'FQDN'].includes(type)
      ? []
      : [field.notSupported('addressType', type, ['FQDN', 'IPv4', 'IPv6'])];
  },
};

/** Three at most, then "+ N more...", as kubectl shows endpoints. */
function few(texts: readonly string[]): string[] {
  const unique = [...new Set(texts)];
  const shown = unique.slice(0, 3);
  const last = shown.pop();
  if (last === undefined) return [];
  return [...shown, unique.length > 3 ? `${last} + ${unique.length - 3} more...` : last];
}

export const endpoints: Behaviour = {
  columns: columns('Name', 'Endpoints', 'Age'),
  cells: (object, nowMs): Json[] => {
    const pairs = objectsAt(object, 'subsets').flatMap((subset) =>
      objectsAt(subset, 'addresses').flatMap((address) =>
        objectsAt(subset, 'ports').map((port) => `${stringAt(address, 'ip') ?? ''}:${numberAt(port, 'port') ?? 0}`),
      ),
    );
    return [object.metadata.name, listOr(few(pairs), '<none>'), age(object.metadata.creationTimestamp, nowMs)];
  },
};
