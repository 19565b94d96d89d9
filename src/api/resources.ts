/** The Kubernetes resources that Sluice reads or writes: where the API serves each. */

import { spiderGroup, spiderVersion } from './spider.ts';

export interface GroupVersionResource {
  /** "" for the core group. */
  readonly group: string;
  readonly version: string;
  /** The resource's name in the path: lower case, plural. */
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
}

/** "v1", "apps/v1": what objects carry in `apiVersion`. */
export function apiVersionOf(gvr: Pick<GroupVersionResource, 'group' | 'version'>): string {
  return gvr.group === '' ? gvr.version : `${gvr.group}/${gvr.version}`;
}

/** "pods", "deployments.apps": how kubectl and error messages name the resource. */
export function resourceName(gvr: Pick<GroupVersionResource, 'group' | 'plural'>): string {
  return gvr.group === '' ? gvr.plural : `${gvr.plural}.${gvr.group}`;
}

/** The path of a collection, or of one object when a name is given; without a namespace, of all namespaces. */
export function resourcePath(gvr: GroupVersionResource, at: { namespace?: string; name?: string } = {}): string {
  const parts = gvr.group === '' ? ['api', gvr.version] : ['apis', gvr.group, gvr.version];
  if (gvr.namespaced && at.namespace !== undefined) parts.push('namespaces', at.namespace);
  parts.push(gvr.plural);
  if (at.name !== undefined) parts.push(at.name);
  return `/${parts.map(encodeURIComponent).join('/')}`;
}

const namespaced = { namespaced: true } as const;
const clusterScoped = { namespaced: false } as const;
const core = { group: '', version: 'v1' } as const;
const apps = { group: 'apps', version: 'v1' } as const;
const batch = { group: 'batch', version: 'v1' } as const;
const kubevirt = { group: 'kubevirt.io', version: 'v1' } as const;
const admission = { group: 'admissionregistration.k8s.io', version: 'v1' } as const;
const rbac = { group: 'rbac.authorization.k8s.io', version: 'v1' } as const;
const spider = { group: spiderGroup, version: spiderVersion } as const;

export const namespaces = { ...core, plural: 'namespaces', kind: 'Namespace', ...clusterScoped } as const;
export const nodes = { ...core, plural: 'nodes', kind: 'Node', ...clusterScoped } as const;
export const pods = { ...core, plural: 'pods', kind: 'Pod', ...namespaced } as const;
export const services = { ...core, plural: 'services', kind: 'Service', ...namespaced } as const;
export const configMaps = { ...core, plural: 'configmaps', kind: 'ConfigMap', ...namespaced } as const;
export const secrets = { ...core, plural: 'secrets', kind: 'Secret', ...namespaced } as const;
export const events = { ...core, plural: 'events', kind: 'Event', ...namespaced } as const;
export const deployments = { ...apps, plural: 'deployments', kind: 'Deployment', ...namespaced } as const;
export const replicaSets = { ...apps, plural: 'replicasets', kind: 'ReplicaSet', ...namespaced } as const;
export const statefulSets = { ...apps, plural: 'statefulsets', kind: 'StatefulSet', ...namespaced } as const;
export const daemonSets = { ...apps, plural: 'daemonsets', kind: 'DaemonSet', ...namespaced } as const;
export const jobs = { ...batch, plural: 'jobs', kind: 'Job', ...namespaced } as const;
export const cronJobs = { ...batch, plural: 'cronjobs', kind: 'CronJob', ...namespaced } as const;
/** KubeVirt's; served only where it is installed. */
export const virtualMachineInstances = {
  ...kubevirt,
  plural: 'virtualmachineinstances',
  kind: 'VirtualMachineInstance',
  ...namespaced,
} as const;
export const virtualMachines = {
  ...kubevirt,
  plural: 'virtualmachines',
  kind: 'VirtualMachine',
  ...namespaced,
} as const;
export const endpointSlices = {
  group: 'discovery.k8s.io',
  version: 'v1',
  plural: 'endpointslices',
  kind: 'EndpointSlice',
  ...namespaced,
} as const;
export const networkPolicies = {
  group: 'networking.k8s.io',
  version: 'v1',
  plural: 'networkpolicies',
  kind: 'NetworkPolicy',
  ...namespaced,
} as const;
export const leases = {
  group: 'coordination.k8s.io',
  version: 'v1',
  plural: 'leases',
  kind: 'Lease',
  ...namespaced,
} as const;
export const customResourceDefinitions = {
  group: 'apiextensions.k8s.io',
  version: 'v1',
  plural: 'customresourcedefinitions',
  kind: 'CustomResourceDefinition',
  ...clusterScoped,
} as const;
export const mutatingWebhookConfigurations = {
  ...admission,
  plural: 'mutatingwebhookconfigurations',
  kind: 'MutatingWebhookConfiguration',
  ...clusterScoped,
} as const;
export const validatingWebhookConfigurations = {
  ...admission,
  plural: 'validatingwebhookconfigurations',
  kind: 'ValidatingWebhookConfiguration',
  ...clusterScoped,
} as const;
// What an installation brings besides the definitions: deploy/rbac.yaml.
export const serviceAccounts = { ...core, plural: 'serviceaccounts', kind: 'ServiceAccount', ...namespaced } as const;
export const clusterRoles = { ...rbac, plural: 'clusterroles', kind: 'ClusterRole', ...clusterScoped } as const;
export const clusterRoleBindings = {
  ...rbac,
  plural: 'clusterrolebindings',
  kind: 'ClusterRoleBinding',
  ...clusterScoped,
} as const;
export const roles = { ...rbac, plural: 'roles', kind: 'Role', ...namespaced } as const;
export const roleBindings = { ...rbac, plural: 'rolebindings', kind: 'RoleBinding', ...namespaced } as const;
export const networkAttachmentDefinitions = {
  group: 'k8s.cni.cncf.io',
  version: 'v1',
  plural: 'network-attachment-definitions',
  kind: 'NetworkAttachmentDefinition',
  ...namespaced,
} as const;
export const spiderMultusConfigs = {
  ...spider,
  plural: 'spidermultusconfigs',
  kind: 'SpiderMultusConfig',
  ...namespaced,
} as const;
export const spiderIPPools = { ...spider, plural: 'spiderippools', kind: 'SpiderIPPool', ...clusterScoped } as const;
export const spiderSubnets = { ...spider, plural: 'spidersubnets', kind: 'SpiderSubnet', ...clusterScoped } as const;
export const spiderReservedIPs = {
  ...spider,
  plural: 'spiderreservedips',
  kind: 'SpiderReservedIP',
  ...clusterScoped,
} as const;
export const spiderEndpoints = {
  ...spider,
  plural: 'spiderendpoints',
  kind: 'SpiderEndpoint',
  ...namespaced,
} as const;
export const spiderCoordinators = {
  ...spider,
  plural: 'spidercoordinators',
  kind: 'SpiderCoordinator',
  ...clusterScoped,
} as const;

// Read only, where a cluster has them: the CIDRs of other networks' pods, and of services.
export const calicoIPPools = {
  group: 'crd.projectcalico.org',
  version: 'v1',
  plural: 'ippools',
  kind: 'IPPool',
  ...clusterScoped,
} as const;
export const ciliumPodIPPools = {
  group: 'cilium.io',
  version: 'v2alpha1',
  plural: 'ciliumpodippools',
  kind: 'CiliumPodIPPool',
  ...clusterScoped,
} as const;
export const serviceCidrs = {
  group: 'networking.k8s.io',
  version: 'v1',
  plural: 'servicecidrs',
  kind: 'ServiceCIDR',
  ...clusterScoped,
} as const;
