/** Defaults of a pod's spec, also inside templates (k8s.io/kubernetes/pkg/apis/core/v1/defaults.go). */
import { objectAt, objectsAt, setDefault, stringAt } from '../json.ts';
import type { JsonObject } from '../json.ts';

export function defaultPodSpec(spec: JsonObject): void {
  setDefault(spec, 'restartPolicy', 'Always');
  setDefault(spec, 'terminationGracePeriodSeconds', 30);
  setDefault(spec, 'dnsPolicy', 'ClusterFirst');
  setDefault(spec, 'securityContext', {});
  setDefault(spec, 'schedulerName', 'default-scheduler');
  if (spec.serviceAccountName === undefined && spec.serviceAccount !== undefined) {
    spec.serviceAccountName = spec.serviceAccount;
  }
  if (spec.serviceAccountName !== undefined) setDefault(spec, 'serviceAccount', spec.serviceAccountName);
  for (const list of ['containers', 'initContainers', 'ephemeralContainers']) {
    for (const container of objectsAt(spec, list)) defaultContainer(container, spec.hostNetwork === true);
  }
  for (const volume of objectsAt(spec, 'volumes')) defaultVolume(volume);
}

function defaultContainer(container: JsonObject, hostNetwork: boolean): void {
  setDefault(container, 'resources', {});
  setDefault(container, 'terminationMessagePath', '/dev/termination-log');
  setDefault(container, 'terminationMessagePolicy', 'File');
  setDefault(container, 'imagePullPolicy', pullPolicy(stringAt(container, 'image') ?? ''));
  for (const port of objectsAt(container, 'ports')) {
    setDefault(port, 'protocol', 'TCP');
    if (hostNetwork && port.containerPort !== undefined) setDefault(port, 'hostPort', port.containerPort);
  }
  for (const variable of objectsAt(container, 'env')) {
    const reference = objectAt(variable, 'valueFrom', 'fieldRef');
    if (reference !== undefined) setDefault(reference, 'apiVersion', 'v1');
  }
  for (const name of ['livenessProbe', 'readinessProbe', 'startupProbe']) {
    const probe = objectAt(container, name);
    if (probe !== undefined) defaultProbe(probe);
  }
}

/** Always for ":latest" or no tag, IfNotPresent otherwise. */
function pullPolicy(image: string): string {
  const last = image.split('/').at(-1) ?? '';
  if (last.includes('@')) return 'IfNotPresent';
  const tag = last.includes(':') ? last.split(':')[1] : 'latest';
  return tag === 'latest' ? 'Always' : 'IfNotPresent';
}

function defaultProbe(probe: JsonObject): void {
  setDefault(probe, 'timeoutSeconds', 1);
  setDefault(probe, 'periodSeconds', 10);
  setDefault(probe, 'successThreshold', 1);
  setDefault(probe, 'failureThreshold', 3);
  const http = objectAt(probe, 'httpGet');
  if (http !== undefined) {
    setDefault(http, 'path', '/');
    setDefault(http, 'scheme', 'HTTP');
  }
  const grpc = objectAt(probe, 'grpc');
  if (grpc !== undefined) setDefault(grpc, 'service', '');
}

const volumeModes = ['configMap', 'secret', 'projected', 'downwardAPI'];

function defaultVolume(volume: JsonObject): void {
  for (const source of volumeModes) {
    const found = objectAt(volume, source);
    if (found !== undefined) setDefault(found, 'defaultMode', 0o644);
  }
  const hostPath = objectAt(volume, 'hostPath');
  if (hostPath !== undefined) setDefault(hostPath, 'type', '');
  if (Object.keys(volume).every((name) => name === 'name')) volume.emptyDir = {};
}
