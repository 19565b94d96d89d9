/** Services, with cluster IPs from the lab's service range. */
import { age } from '../age.ts';
import { formatIp, parseIp } from '../../../core/ip.ts';
import { numberAt, objectAt, objectsAt, setDefault, stringAt, stringsAt, textOf } from '../json.ts';
import type { Json, JsonObject, KubeObject } from '../json.ts';
import { dns1035Label, portName } from '../names.ts';
import type { Behaviour } from '../resource.ts';
import { field, type FieldError } from '../status.ts';
import type { Store } from '../store.ts';
import { columns, listOr } from './columns.ts';
import { portNumber, validateProtocol } from './pod-validation.ts';
import { mapText } from './workload.ts';

/** 10.96.0.0/16; .0.1 is the API server's, as in kubeadm clusters. */
const firstClusterIp = 0x0a_60_00_02n;
const lastClusterIp = 0x0a_60_ff_fen;
const firstNodePort = 30_000;
const lastNodePort = 32_767;
const bucket = '/services';

export const service: Behaviour = {
  columns: columns('Name', 'Type', 'Cluster-IP', 'External-IP', 'Port(s)', 'Age', '+Selector'),
  cells: serviceCells,
  nameRule: dns1035Label,
  selectable: (object) => ({
    'spec.clusterIP': stringAt(object, 'spec', 'clusterIP') ?? '',
    'spec.type': stringAt(object, 'spec', 'type') ?? '',
  }),
  defaults: serviceDefaults,
  prepareCreate: (object, context) => {
    object.status = { loadBalancer: {} };
    allocate(object, undefined, context.store);
  },
  prepareUpdate: (object, old, context) => {
    if (context.subresource === '') allocate(object, old, context.store);
  },
  validate: validateService,
};

function serviceDefaults(object: KubeObject): void {
  const spec = objectAt(object, 'spec');
  if (spec === undefined) return;
  setDefault(spec, 'sessionAffinity', 'None');
  setDefault(spec, 'type', 'ClusterIP');
  if (spec.type === 'NodePort' || spec.type === 'LoadBalancer') setDefault(spec, 'externalTrafficPolicy', 'Cluster');
  if (spec.type === 'LoadBalancer') setDefault(spec, 'allocateLoadBalancerNodePorts', true);
  if (spec.type !== 'ExternalName') setDefault(spec, 'internalTrafficPolicy', 'Cluster');
  for (const port of objectsAt(spec, 'ports')) {
    setDefault(port, 'protocol', 'TCP');
    if (port.targetPort === undefined || port.targetPort === '' || port.targetPort === 0)
      port.targetPort = port.port ?? 0;
  }
}

function allocate(object: KubeObject, old: KubeObject | undefined, store: Store): void {
  const spec = objectAt(object, 'spec');
  if (spec === undefined) return;
  if (spec.type === 'ExternalName') {
    for (const name of ['clusterIP', 'clusterIPs', 'ipFamilies', 'ipFamilyPolicy']) delete spec[name];
    return;
  }
  const kept = stringAt(old, 'spec', 'clusterIP') ?? '';
  const asked = stringAt(spec, 'clusterIP') ?? stringsAt(spec, 'clusterIPs')[0] ?? '';
  spec.clusterIP = asked !== '' ? asked : kept !== '' ? kept : freeClusterIp(store);
  spec.clusterIPs = [spec.clusterIP];
  const v6 = parseIp(stringAt(spec, 'clusterIP') ?? '')?.family === 6;
  setDefault(spec, 'ipFamilies', [v6 ? 'IPv6' : 'IPv4']);
  setDefault(spec, 'ipFamilyPolicy', 'SingleStack');
  if (spec.type === 'NodePort' || spec.type === 'LoadBalancer') allocateNodePorts(spec, old, store);
}

function freeClusterIp(store: Store): string {
  const used = new Set(store.list(bucket).flatMap((other) => stringsAt(other, 'spec', 'clusterIPs')));
  for (let value = firstClusterIp; value <= lastClusterIp; value++) {
    const text = formatIp({ family: 4, value });
    if (!used.has(text)) return text;
  }
  // Left empty, validation reports it.
  return '';
}

function allocateNodePorts(spec: JsonObject, old: KubeObject | undefined, store: Store): void {
  const used = new Set(
    store
      .list(bucket)
      .flatMap((other) => objectsAt(other, 'spec', 'ports').map((port) => numberAt(port, 'nodePort') ?? 0)),
  );
  for (const port of objectsAt(spec, 'ports')) {
    const before = objectsAt(old, 'spec', 'ports').find(
      (item) => item.port === port.port && item.protocol === port.protocol,
    );
    port.nodePort ??= before?.nodePort;
    if (port.nodePort !== undefined && port.nodePort !== 0) continue;
    let candidate = firstNodePort;
    while (used.has(candidate) && candidate < lastNodePort) candidate++;
    used.add(candidate);
    port.nodePort = candidate;
  }
}

const types = ['ClusterIP', 'ExternalName', 'LoadBalancer', 'NodePort'];

function validateService(object: KubeObject, old: KubeObject | undefined): FieldError[] {
  const spec = objectAt(object, 'spec') ?? {};
  const type = stringAt(spec, 'type') ?? '';
  const ports = objectsAt(spec, 'ports');
  const errors: FieldError[] = [];
  if (!types.includes(type)) errors.push(field.notSupported('spec.type', type, types));
  const address = stringAt(spec, 'clusterIP') ?? '';
  if (ports.length === 0 && type !== 'ExternalName' && address !== 'None') errors.push(field.required('spec.ports'));
  if (address !== '' && address !== 'None' && parseIp(address) === undefined) {
    errors.push(
      field.invalid('spec.clusterIPs[0]', address, 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'),
    );
  }
  errors.push(...validateServicePorts(ports));
  const affinity = stringAt(spec, 'sessionAffinity') ?? '';
  if (affinity !== 'None' && affinity !== 'ClientIP') {
    errors.push(field.notSupported('spec.sessionAffinity', affinity, ['ClientIP', 'None']));
  }
  const before = stringAt(old, 'spec', 'clusterIP') ?? '';
  if (before !== '' && type !== 'ExternalName' && address !== before) {
    errors.push(field.invalid('spec.clusterIPs[0]', address, 'may not change once set'));
  }
  return errors;
}

function validateServicePorts(ports: readonly JsonObject[]): FieldError[] {
  const names = new Set<string>();
  const seen = new Set<string>();
  return ports.flatMap((port, index) => {
    const path = `spec.ports[${index}]`;
    const name = stringAt(port, 'name') ?? '';
    const errors = [...portNumber(port.port, `${path}.port`), ...validateProtocol(port, path)];
    if (name === '' && ports.length > 1) errors.push(field.required(`${path}.name`));
    if (name !== '' && names.has(name)) errors.push(field.duplicate(`${path}.name`, name));
    names.add(name);
    if (typeof port.targetPort === 'number') errors.push(...portNumber(port.targetPort, `${path}.targetPort`));
    else if (typeof port.targetPort === 'string') {
      errors.push(
        ...portName(port.targetPort).map((wrong) => field.invalid(`${path}.targetPort`, port.targetPort, wrong)),
      );
    }
    const key = `${textOf(port.protocol)}/${textOf(port.port)}`;
    if (seen.has(key)) errors.push(field.duplicate(path, { port: port.port ?? 0, protocol: port.protocol ?? 'TCP' }));
    seen.add(key);
    return errors;
  });
}

function serviceCells(object: KubeObject, nowMs: number): Json[] {
  const spec = objectAt(object, 'spec');
  const ports = objectsAt(spec, 'ports').map((port) => {
    const nodePort = numberAt(port, 'nodePort') ?? 0;
    return `${textOf(port.port)}${nodePort === 0 ? '' : `:${nodePort}`}/${textOf(port.protocol)}`;
  });
  return [
    object.metadata.name,
    stringAt(spec, 'type') ?? '',
    stringAt(spec, 'clusterIP') ?? '<none>',
    externalText(object),
    listOr(ports, '<none>'),
    age(object.metadata.creationTimestamp, nowMs),
    mapText(objectAt(spec, 'selector')),
  ];
}

function externalText(object: KubeObject): string {
  const external = stringsAt(object, 'spec', 'externalIPs');
  const type = stringAt(object, 'spec', 'type');
  if (type === 'ExternalName') return stringAt(object, 'spec', 'externalName') ?? '<none>';
  const balanced = objectsAt(object, 'status', 'loadBalancer', 'ingress').map(
    (item) => stringAt(item, 'ip') ?? stringAt(item, 'hostname') ?? '',
  );
  if (type === 'LoadBalancer') return listOr([...balanced, ...external], '<pending>');
  return listOr(external, '<none>');
}
