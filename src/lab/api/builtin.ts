/** The built-in resources: their names and where their behaviour is. */
import type { KubeObject } from './json.ts';
import { daemonSet, deployment, replicaSet, statefulSet } from './kinds/workload.ts';
import { cronJob, job } from './kinds/batch.ts';
import { configMap, lease, namespace, node, secret, serviceAccount } from './kinds/cluster.ts';
import { endpointSlice, endpoints, networkPolicy } from './kinds/network.ts';
import { event, fromEventsV1, toEventsV1 } from './kinds/event.ts';
import { crdBehaviour } from './crd-kind.ts';
import { pod } from './kinds/pod.ts';
import { service } from './kinds/service.ts';
import { webhookConfiguration } from './kinds/webhook-configuration.ts';
import { allVerbs, type Behaviour, type Resource, type ScalePaths } from './resource.ts';
import { decodeTyped } from './schema/decode.ts';
import { pathSegment } from './names.ts';

interface Extra {
  readonly cluster?: boolean;
  readonly short?: readonly string[];
  readonly categories?: readonly string[];
  readonly status?: boolean;
  readonly scale?: ScalePaths;
  readonly connects?: Record<string, string>;
  readonly verbs?: readonly string[];
  readonly typeName?: string;
  readonly bucket?: string;
  readonly toServed?: (stored: KubeObject) => KubeObject;
  readonly toStored?: (served: KubeObject) => KubeObject;
}

function builtin(apiVersion: string, plural: string, kind: string, behaviour: Behaviour, extra: Extra = {}): Resource {
  const [group = '', version = ''] = apiVersion.includes('/') ? apiVersion.split('/') : ['', apiVersion];
  const typeName = extra.typeName ?? kind;
  return {
    group,
    version,
    plural,
    singular: kind.toLowerCase(),
    kind,
    listKind: `${kind}List`,
    namespaced: extra.cluster !== true,
    shortNames: extra.short ?? [],
    categories: extra.categories ?? [],
    bucket: extra.bucket ?? `${group}/${plural}`,
    hasStatus: extra.status ?? false,
    scale: extra.scale,
    connects: extra.connects ?? {},
    verbs: extra.verbs ?? allVerbs,
    typeName,
    behaviour,
    decode: (object) => decodeTyped(typeName, object),
    ...(extra.toServed === undefined ? {} : { toServed: extra.toServed }),
    ...(extra.toStored === undefined ? {} : { toStored: extra.toStored }),
  };
}

const podConnects = {
  attach: 'PodAttachOptions',
  binding: 'Binding',
  ephemeralcontainers: 'Pod',
  eviction: 'Eviction',
  exec: 'PodExecOptions',
  log: 'Pod',
  portforward: 'PodPortForwardOptions',
};

const workloadScale: ScalePaths = {
  specReplicas: ['spec', 'replicas'],
  statusReplicas: ['status', 'replicas'],
  selector: ['spec', 'selector'],
};

const cluster = { cluster: true };
const createOnly = { cluster: true, verbs: ['create'] };
const all = ['all'];
const rbac: Behaviour = { nameRule: pathSegment };

export function builtinResources(): Resource[] {
  return [
    ...coreResources(),
    ...appsResources(),
    builtin('batch/v1', 'jobs', 'Job', job, { categories: all, status: true }),
    builtin('batch/v1', 'cronjobs', 'CronJob', cronJob, { categories: all, short: ['cj'], status: true }),
    builtin('discovery.k8s.io/v1', 'endpointslices', 'EndpointSlice', endpointSlice),
    builtin('networking.k8s.io/v1', 'networkpolicies', 'NetworkPolicy', networkPolicy, { short: ['netpol'] }),
    builtin('coordination.k8s.io/v1', 'leases', 'Lease', lease),
    builtin('events.k8s.io/v1', 'events', 'Event', event, {
      short: ['ev'],
      typeName: 'EventsV1Event',
      bucket: '/events',
      toServed: toEventsV1,
      toStored: fromEventsV1,
    }),
    builtin('rbac.authorization.k8s.io/v1', 'clusterroles', 'ClusterRole', rbac, cluster),
    builtin('rbac.authorization.k8s.io/v1', 'clusterrolebindings', 'ClusterRoleBinding', rbac, cluster),
    builtin('rbac.authorization.k8s.io/v1', 'roles', 'Role', rbac),
    builtin('rbac.authorization.k8s.io/v1', 'rolebindings', 'RoleBinding', rbac),
    builtin('authorization.k8s.io/v1', 'subjectaccessreviews', 'SubjectAccessReview', {}, createOnly),
    builtin('authorization.k8s.io/v1', 'selfsubjectaccessreviews', 'SelfSubjectAccessReview', {}, createOnly),
    builtin('authorization.k8s.io/v1', 'selfsubjectrulesreviews', 'SelfSubjectRulesReview', {}, createOnly),
    builtin('authentication.k8s.io/v1', 'selfsubjectreviews', 'SelfSubjectReview', {}, createOnly),
    ...registrationResources(),
  ];
}

function coreResources(): Resource[] {
  return [
    builtin('v1', 'pods', 'Pod', pod, { short: ['po'], categories: all, status: true, connects: podConnects }),
    builtin('v1', 'namespaces', 'Namespace', namespace, { cluster: true, short: ['ns'], status: true }),
    builtin('v1', 'nodes', 'Node', node, { cluster: true, short: ['no'], status: true }),
    builtin('v1', 'services', 'Service', service, { short: ['svc'], categories: all, status: true }),
    builtin('v1', 'endpoints', 'Endpoints', endpoints, { short: ['ep'] }),
    builtin('v1', 'configmaps', 'ConfigMap', configMap, { short: ['cm'] }),
    builtin('v1', 'secrets', 'Secret', secret),
    builtin('v1', 'serviceaccounts', 'ServiceAccount', serviceAccount, { short: ['sa'] }),
    builtin('v1', 'events', 'Event', event, { short: ['ev'] }),
  ];
}

function appsResources(): Resource[] {
  const workload = { categories: all, status: true };
  return [
    builtin('apps/v1', 'deployments', 'Deployment', deployment, {
      ...workload,
      short: ['deploy'],
      scale: workloadScale,
    }),
    builtin('apps/v1', 'replicasets', 'ReplicaSet', replicaSet, { ...workload, short: ['rs'], scale: workloadScale }),
    builtin('apps/v1', 'statefulsets', 'StatefulSet', statefulSet, {
      ...workload,
      short: ['sts'],
      scale: workloadScale,
    }),
    builtin('apps/v1', 'daemonsets', 'DaemonSet', daemonSet, { ...workload, short: ['ds'] }),
    builtin('apps/v1', 'controllerrevisions', 'ControllerRevision', {}),
  ];
}

function registrationResources(): Resource[] {
  const registration = 'admissionregistration.k8s.io/v1';
  return [
    builtin('apiextensions.k8s.io/v1', 'customresourcedefinitions', 'CustomResourceDefinition', crdBehaviour, {
      cluster: true,
      short: ['crd', 'crds'],
      categories: ['api-extensions'],
      status: true,
    }),
    builtin(registration, 'mutatingwebhookconfigurations', 'MutatingWebhookConfiguration', webhookConfiguration, {
      cluster: true,
      categories: ['api-extensions'],
    }),
    builtin(registration, 'validatingwebhookconfigurations', 'ValidatingWebhookConfiguration', webhookConfiguration, {
      cluster: true,
      categories: ['api-extensions'],
    }),
  ];
}
