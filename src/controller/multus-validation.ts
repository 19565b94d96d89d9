import { forbidden, invalid, notSupported, required, type FieldError } from '../api/field-error.ts';
import { spiderAnnotations } from '../api/spider.ts';
import {
  cniTypes,
  typeBlocks,
  type MultusConfigSpec,
  type NetworkAttachmentDefinition,
  type ParentSpec,
  type PoolNames,
  type SpiderMultusConfig,
  type TypeBlock,
} from '../api/spidermultusconfig.ts';
import { interfaceNamePattern } from '../core/interface-name.ts';
import { attachmentName, foreignController } from './attachment.ts';
import { validateCoordinator } from './coordinator-validation.ts';
import { validateMetadata } from './multus-metadata-validation.ts';

/** What makes a SpiderMultusConfig admissible, after defaulting. */

export interface MultusValidationContext {
  readonly old?: SpiderMultusConfig;
  /** The attachment that has the target name now. */
  readonly attachment?: NetworkAttachmentDefinition;
}

export function validateMultusConfig(config: SpiderMultusConfig, context: MultusValidationContext = {}): FieldError[] {
  const spec = config.spec ?? {};
  return [
    ...validateMetadata(config, context.old),
    ...validateOwner(config, context.attachment),
    ...validateType(spec),
    ...validateInjection(config, spec),
    ...validateCoordinator(spec),
    ...validateChain(spec.chainCNIJsonData ?? []),
  ];
}

/** Another owner would fight over the attachment for ever. One without an owner is adopted. */
function validateOwner(config: SpiderMultusConfig, attachment: NetworkAttachmentDefinition | undefined): FieldError[] {
  const owner = attachment === undefined ? undefined : foreignController(attachment, config);
  if (owner === undefined) return [];
  const name = attachmentName(config);
  const namespace = config.metadata.namespace ?? '';
  const detail =
    `the net-attach-def ${namespace}/${name} already exists and is managed by ${owner.kind} ${namespace}/${owner.name}. ` +
    `Choose another name with the annotation ${spiderAnnotations.crName}`;
  return [invalid('metadata.name', config.metadata.name, detail)];
}

function blockOf(cniType: string): TypeBlock | undefined {
  const key = cniType === 'ib-sriov' ? 'ibsriov' : cniType;
  return typeBlocks.find((block) => block === key);
}

function validateType(spec: MultusConfigSpec): FieldError[] {
  const cniType = spec.cniType ?? 'custom';
  if (!(cniTypes as readonly string[]).includes(cniType)) return [notSupported('spec.cniType', cniType, cniTypes)];
  const own = blockOf(cniType);
  const errors = typeBlocks
    .filter((block) => block !== own && spec[block] !== undefined)
    .map((block) =>
      forbidden(
        `spec.${block}`,
        `the cniType ${cniType} only supports spec.${own ?? 'custom'}Config, please remove other CNI configs`,
      ),
    );
  if (own === undefined) return [...errors, ...validateCustom(spec)];
  if (spec[own] === undefined) {
    return [
      ...errors,
      required(`spec.${own}`, `no spec.${own}Config specified, add spec.${own} or change spec.cniType`),
    ];
  }
  return [...errors, ...validateBlock(spec, own)];
}

function validateCustom(spec: MultusConfigSpec): FieldError[] {
  if (spec.customCNI === undefined || spec.customCNI === '' || parseJson(spec.customCNI) !== undefined) return [];
  return [
    invalid(
      'spec.customCNI',
      spec.customCNI,
      'customCNI must be valid JSON: a CNI configuration or configuration list',
    ),
  ];
}

function validateBlock(spec: MultusConfigSpec, block: TypeBlock): FieldError[] {
  const field = `spec.${block}`;
  const matchMaster = block === 'sriov' ? [] : validateMatchMaster(field, block, spec[block]?.ippools);
  return [...matchMaster, ...validateBlockFields(spec, block, field)];
}

function validateBlockFields(spec: MultusConfigSpec, block: TypeBlock, field: string): FieldError[] {
  switch (block) {
    case 'macvlan':
    case 'ipvlan':
      return validateParent(field, spec[block] ?? { master: [] });
    case 'vlan':
      return [...validateParent(field, spec.vlan ?? { master: [] }), ...validateVlanMode(field, spec.vlan)];
    case 'sriov':
      return validateSriov(field, spec.sriov);
    case 'ibsriov':
      return nonEmpty(`${field}.resourceName`, spec.ibsriov?.resourceName, deviceResource);
    case 'ipoib':
      return nonEmpty(`${field}.master`, spec.ipoib?.master, 'the IPoIB interface of the nodes, such as ib0');
    case 'ovs':
      return validateOvs(field, spec.ovs);
  }
}

function validateMatchMaster(field: string, block: string, pools: PoolNames | undefined): FieldError[] {
  if (pools?.matchMasterSubnet !== true) return [];
  const detail = `MatchMasterSubnet feature is not supported for ${block}, only for sriov; set it to false`;
  return [forbidden(`${field}.ippools.matchMasterSubnet`, detail)];
}

function validateParent(field: string, parent: ParentSpec): FieldError[] {
  const errors: FieldError[] = [];
  if (parent.master.length === 0 || parent.master.some((name) => name === '')) {
    errors.push(required(`${field}.master`, "master can't be empty, name the parent interface on the node"));
  }
  errors.push(...inRange(`${field}.vlanID`, parent.vlanID, 0, 4094));
  if ((parent.mtu ?? 0) < 0)
    errors.push(invalid(`${field}.mtu`, parent.mtu, 'must be 0 (the MTU of the parent) or more'));
  if (parent.master.length < 2) return errors;
  if (parent.bond === undefined) {
    errors.push(
      required(`${field}.bond`, 'the bond property is nil with multiple Interfaces, add it or keep one master'),
    );
  } else if (parent.bond.name === '') {
    errors.push(required(`${field}.bond.name`, "bond name can't be empty, name the bond to create"));
  } else if (!interfaceNamePattern.test(parent.bond.name)) {
    const detail = 'must be a name for an interface: at most 15 characters, no "/", ":" or space';
    errors.push(invalid(`${field}.bond.name`, parent.bond.name, detail));
  }
  return errors;
}

function validateVlanMode(field: string, vlan: MultusConfigSpec['vlan']): FieldError[] {
  const mode = vlan?.vlanMode ?? 'manual';
  if (mode !== 'manual' && mode !== 'auto') return [notSupported(`${field}.vlanMode`, mode, ['manual', 'auto'])];
  if (mode === 'manual' || vlan?.vlanID === undefined) return [];
  return [forbidden(`${field}.vlanID`, 'must not be set when vlanMode is auto, remove it or set vlanMode to manual')];
}

function validateSriov(field: string, sriov: MultusConfigSpec['sriov']): FieldError[] {
  const errors = nonEmpty(`${field}.resourceName`, sriov?.resourceName, deviceResource);
  const { minTxRateMbps = 0, maxTxRateMbps } = sriov ?? {};
  errors.push(...inRange(`${field}.vlanID`, sriov?.vlanID, 0, 4094));
  if (maxTxRateMbps !== undefined && minTxRateMbps > maxTxRateMbps) {
    const detail = `minTxRateMbps must not exceed maxTxRateMbps ${maxTxRateMbps}, lower it`;
    errors.push(invalid(`${field}.minTxRateMbps`, minTxRateMbps, detail));
  }
  return errors;
}

function validateOvs(field: string, ovs: MultusConfigSpec['ovs']): FieldError[] {
  const errors = [
    ...nonEmpty(`${field}.bridge`, ovs?.bridge, 'the Open vSwitch bridge of the nodes, such as br1'),
    ...inRange(`${field}.vlan`, ovs?.vlan, 0, 4094),
  ];
  for (const [index, trunk] of (ovs?.trunk ?? []).entries()) {
    const at = `${field}.trunk[${index}]`;
    for (const key of ['minID', 'maxID', 'id'] as const) errors.push(...inRange(`${at}.${key}`, trunk[key], 0, 4094));
    if ((trunk.minID === undefined) !== (trunk.maxID === undefined)) {
      errors.push(required(`${at}.${trunk.minID === undefined ? 'minID' : 'maxID'}`, 'minID and maxID go together'));
    } else if ((trunk.minID ?? 0) > (trunk.maxID ?? 0)) {
      errors.push(invalid(`${at}.minID`, trunk.minID, `minID must not exceed maxID ${trunk.maxID ?? 0}`));
    }
  }
  return errors;
}

function validateInjection(config: SpiderMultusConfig, spec: MultusConfigSpec): FieldError[] {
  const annotations = config.metadata.annotations ?? {};
  const block = blockOf(spec.cniType ?? 'custom');
  const own = block === undefined ? undefined : spec[block];
  const pools = [...(own?.ippools?.ipv4 ?? []), ...(own?.ippools?.ipv6 ?? [])];
  const resource =
    (own as { rdmaResourceName?: string } | undefined)?.rdmaResourceName ||
    (own as { resourceName?: string } | undefined)?.resourceName;
  const errors: FieldError[] = [];
  for (const key of [spiderAnnotations.rdmaInject, spiderAnnotations.networkInject]) {
    if (annotations[key] === undefined) continue;
    const field = `metadata.annotations[${key}]`;
    if (block === undefined || block === 'ovs') {
      errors.push(forbidden(field, `is not supported for cniType ${spec.cniType ?? 'custom'}, remove the annotation`));
    } else if (key === spiderAnnotations.rdmaInject && !resource) {
      errors.push(required(field, `needs a resource name: set spec.${block}.rdmaResourceName or resourceName`));
    } else if ((key === spiderAnnotations.rdmaInject || resource) && pools.length === 0) {
      errors.push(required(field, `needs at least one pool: set spec.${block}.ippools`));
    }
  }
  return errors;
}

function validateChain(chain: readonly string[]): FieldError[] {
  const errors: FieldError[] = [];
  for (const [index, text] of chain.entries()) {
    const plugin = parseJson(text);
    const isObject = typeof plugin === 'object' && plugin !== null && !Array.isArray(plugin);
    const type = isObject ? (plugin as Record<string, unknown>)['type'] : undefined;
    if (typeof type === 'string' && type !== '') continue;
    const detail = 'must be a JSON object with a non-empty "type", such as {"type":"sluice"}';
    errors.push(forbidden(`spec.chainCNIJsonData[${index}]`, isObject ? `it has no type: ${detail}` : detail));
  }
  return errors;
}

/** Undefined for what is not JSON, or holds a number that no double can (Go refuses it too). */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text, (_key, value: unknown) => {
      if (typeof value === 'number' && !Number.isFinite(value)) throw new RangeError('number out of range');
      return value;
    });
  } catch {
    return undefined;
  }
}

function inRange(field: string, value: number | undefined, min: number, max: number): FieldError[] {
  if (value === undefined || (value >= min && value <= max)) return [];
  return [invalid(field, value, `must be in the range of ${min} to ${max}`)];
}

const deviceResource = 'what the device plugin offers, such as spidernet.io/sriov_netdevice';

function nonEmpty(field: string, text: string | undefined, what: string): FieldError[] {
  return text === undefined || text === '' ? [required(field, `must not be empty: name ${what}`)] : [];
}
