/** The mistakes people make in a pod's spec, reported as Kubernetes reports them (pkg/apis/core/validation). */
import { numberAt, objectAt, objectsAt, stringAt } from '../json.ts';
import type { Json, JsonObject } from '../json.ts';
import { dns1123Label, environmentName, portName } from '../names.ts';
import { field, type FieldError } from '../status.ts';

export function validatePodSpec(spec: JsonObject | undefined, path: string): FieldError[] {
  const containers = objectsAt(spec, 'containers');
  const errors: FieldError[] = [];
  if (containers.length === 0) errors.push(field.required(`${path}.containers`));
  const volumes = new Set<string>();
  for (const [index, volume] of objectsAt(spec, 'volumes').entries()) {
    errors.push(...validateVolumeName(volume, `${path}.volumes[${index}]`, volumes));
  }
  const names = new Set<string>();
  for (const list of ['containers', 'initContainers']) {
    for (const [index, container] of objectsAt(spec, list).entries()) {
      errors.push(...validateContainer(container, `${path}.${list}[${index}]`, names, volumes));
    }
  }
  errors.push(...oneOf(spec, 'restartPolicy', ['Always', 'OnFailure', 'Never'], path));
  errors.push(...oneOf(spec, 'dnsPolicy', ['ClusterFirst', 'ClusterFirstWithHostNet', 'Default', 'None'], path));
  const grace = numberAt(spec, 'terminationGracePeriodSeconds');
  if (grace !== undefined && grace < 0) {
    errors.push(field.invalid(`${path}.terminationGracePeriodSeconds`, grace, 'must be greater than or equal to 0'));
  }
  return errors;
}

function oneOf(spec: JsonObject | undefined, name: string, allowed: readonly string[], path: string): FieldError[] {
  const value = stringAt(spec, name);
  return value === undefined || allowed.includes(value) ? [] : [field.notSupported(`${path}.${name}`, value, allowed)];
}

function validateVolumeName(volume: JsonObject, path: string, names: Set<string>): FieldError[] {
  const name = stringAt(volume, 'name') ?? '';
  if (name === '') return [field.required(`${path}.name`)];
  if (names.has(name)) return [field.duplicate(`${path}.name`, name)];
  names.add(name);
  return dns1123Label(name).map((wrong) => field.invalid(`${path}.name`, name, wrong));
}

function validateContainer(
  container: JsonObject,
  path: string,
  names: Set<string>,
  volumes: ReadonlySet<string>,
): FieldError[] {
  const errors: FieldError[] = [];
  const name = stringAt(container, 'name') ?? '';
  if (name === '') errors.push(field.required(`${path}.name`));
  else if (names.has(name)) errors.push(field.duplicate(`${path}.name`, name));
  else errors.push(...dns1123Label(name).map((wrong) => field.invalid(`${path}.name`, name, wrong)));
  names.add(name);
  const image = stringAt(container, 'image') ?? '';
  if (image === '') errors.push(field.required(`${path}.image`));
  else if (image.trim() !== image) {
    errors.push(field.invalid(`${path}.image`, image, 'must not have leading or trailing whitespace'));
  }
  errors.push(...oneOf(container, 'imagePullPolicy', ['Always', 'IfNotPresent', 'Never'], path));
  errors.push(...validatePorts(objectsAt(container, 'ports'), `${path}.ports`));
  errors.push(...validateEnvironment(container, path));
  for (const [index, mount] of objectsAt(container, 'volumeMounts').entries()) {
    errors.push(...validateMount(mount, `${path}.volumeMounts[${index}]`, volumes));
  }
  return errors;
}

function validatePorts(ports: readonly JsonObject[], path: string): FieldError[] {
  const names = new Set<string>();
  return ports.flatMap((port, index) => {
    const at = `${path}[${index}]`;
    const errors: FieldError[] = [];
    const name = stringAt(port, 'name') ?? '';
    if (name !== '') {
      errors.push(...portName(name).map((wrong) => field.invalid(`${at}.name`, name, wrong)));
      if (names.has(name)) errors.push(field.duplicate(`${at}.name`, name));
      names.add(name);
    }
    const number = numberAt(port, 'containerPort') ?? 0;
    if (number === 0) errors.push(field.required(`${at}.containerPort`));
    else errors.push(...portNumber(number, `${at}.containerPort`));
    const host = numberAt(port, 'hostPort') ?? 0;
    if (host !== 0) errors.push(...portNumber(host, `${at}.hostPort`));
    return [...errors, ...validateProtocol(port, at)];
  });
}

export function portNumber(value: Json | undefined, path: string): FieldError[] {
  if (typeof value === 'number' && value >= 1 && value <= 65535) return [];
  return [field.invalid(path, value, 'must be between 1 and 65535, inclusive')];
}

export function validateProtocol(port: JsonObject, path: string): FieldError[] {
  return oneOf(port, 'protocol', ['SCTP', 'TCP', 'UDP'], path);
}

function validateEnvironment(container: JsonObject, path: string): FieldError[] {
  return objectsAt(container, 'env').flatMap((variable, index) => {
    const at = `${path}.env[${index}]`;
    const name = stringAt(variable, 'name') ?? '';
    if (name === '') return [field.required(`${at}.name`)];
    const errors = environmentName(name).map((wrong) => field.invalid(`${at}.name`, name, wrong));
    const both = (stringAt(variable, 'value') ?? '') !== '' && objectAt(variable, 'valueFrom') !== undefined;
    return both
      ? [...errors, field.invalid(`${at}.valueFrom`, '', 'may not be specified when `value` is not empty')]
      : errors;
  });
}

function validateMount(mount: JsonObject, path: string, volumes: ReadonlySet<string>): FieldError[] {
  const name = stringAt(mount, 'name') ?? '';
  const errors: FieldError[] = [];
  if (name === '') errors.push(field.required(`${path}.name`));
  else if (!volumes.has(name)) {
    errors.push({ type: 'FieldValueNotFound', field: `${path}.name`, message: `Not found: "${name}"` });
  }
  if ((stringAt(mount, 'mountPath') ?? '') === '') errors.push(field.required(`${path}.mountPath`));
  return errors;
}
