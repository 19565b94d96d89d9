/**
 * A cluster as large as asked for, the same in every run: namespaces with applications of five replicas each, and five
 * policies for every application. One list of kinds of policies is dealt out in turn, so that every kind is there.
 */
import type { ObjectMeta, Namespace, NetworkPolicy, NetworkPolicySpec, Node, Pod } from '../src/api/kubernetes.ts';

export const namespaceCount = 300;
const replicas = 5;
const policiesPerApp = 5;
const podsPerNode = 100;
/** Pods on the node whose agent is measured: the kubelet's default limit. */
export const localPods = 110;
export const localNode = 'node-local';

export interface ScaleWorld {
  readonly namespaces: readonly Namespace[];
  readonly nodes: readonly Node[];
  readonly pods: readonly Pod[];
  readonly policies: readonly NetworkPolicy[];
  /** Indexes in `pods` of those on the measured node: one in each of the first namespaces. */
  readonly local: readonly number[];
}

export function namespaceName(index: number): string {
  return `team-${String(index).padStart(3, '0')}`;
}

export function appName(index: number): string {
  return `app-${index}`;
}

/** `podCount` pods and as many policies; a multiple of namespaces × replicas. */
export function scaleWorld(podCount: number): ScaleWorld {
  const appsPerNamespace = podCount / namespaceCount / replicas;
  const pods: Pod[] = [];
  const policies: NetworkPolicy[] = [];
  const local: number[] = [];
  for (let ns = 0; ns < namespaceCount; ns++) {
    for (let app = 0; app < appsPerNamespace; app++) {
      for (let replica = 0; replica < replicas; replica++) {
        const isLocal = ns < localPods && app === 0 && replica === 0;
        if (isLocal) local.push(pods.length);
        pods.push(podObject(pods.length, ns, app, replica, isLocal));
      }
      for (let k = 0; k < policiesPerApp; k++) {
        const spec = policySpec((app * policiesPerApp + k + ns) % policyKinds.length, ns, app, appsPerNamespace);
        policies.push(policyObject(policies.length, ns, `${appName(app)}-${k}`, spec));
      }
    }
  }
  const nodeCount = Math.ceil(podCount / podsPerNode);
  const nodes = [localNode, ...Array.from({ length: nodeCount }, (_, i) => `node-${i}`)].map(nodeObject);
  const namespaces = Array.from({ length: namespaceCount }, (_, i) => namespaceObject(i));
  return { namespaces, nodes, pods, policies, local };
}

export function podIp(index: number): string {
  return `10.${64 + (index >>> 16)}.${(index >>> 8) & 255}.${index & 255}`;
}

interface PolicyPlace {
  readonly ns: number;
  readonly app: number;
  readonly apps: number;
}

const tcp = (port: number) => [{ protocol: 'TCP', port }] as const;
const appIs = (app: number) => ({ matchLabels: { app: appName(app) } });
const namespaceIs = (ns: number) => ({ matchLabels: { 'kubernetes.io/metadata.name': namespaceName(ns) } });

/** What people write: next application, other teams, monitoring, DNS, the outside, port ranges, deny by default. */
const policyKinds: readonly ((place: PolicyPlace) => Omit<NetworkPolicySpec, 'podSelector'>)[] = [
  ({ app, apps }) => ({ ingress: [{ from: [{ podSelector: appIs((app + 1) % apps) }], ports: tcp(8080) }] }),
  ({ ns, app }) => ({
    ingress: [
      {
        from: [{ namespaceSelector: { matchLabels: { group: String(ns % 30) } }, podSelector: appIs(app) }],
        ports: tcp(9090),
      },
    ],
  }),
  ({ app, apps }) => ({ egress: [{ to: [{ podSelector: appIs((app + 2) % apps) }], ports: tcp(5432) }] }),
  () => ({ egress: [{ to: [{ namespaceSelector: namespaceIs(0) }], ports: [{ protocol: 'UDP', port: 53 }] }] }),
  ({ ns }) => ({
    ingress: [{ from: [{ ipBlock: { cidr: `192.168.${ns % 256}.0/24`, except: [`192.168.${ns % 256}.128/28`] } }] }],
  }),
  () => ({ egress: [{ to: [{ ipBlock: { cidr: '0.0.0.0/0', except: ['10.0.0.0/8'] } }], ports: tcp(443) }] }),
  () => ({ ingress: [{ from: [{ podSelector: {} }], ports: [{ protocol: 'TCP', port: 30000, endPort: 32767 }] }] }),
  () => ({ ingress: [{ ports: [{ protocol: 'TCP', port: 'http' }] }] }),
  () => ({ policyTypes: ['Ingress', 'Egress'] }),
  () => ({ ingress: [{ from: [{ namespaceSelector: namespaceIs(1), podSelector: appIs(0) }], ports: tcp(9100) }] }),
];

function policySpec(kind: number, ns: number, app: number, apps: number): NetworkPolicySpec {
  const rules = policyKinds[kind]?.({ ns, app, apps }) ?? {};
  const types = 'egress' in rules ? ['Egress'] : ['Ingress'];
  return { podSelector: appIs(app), policyTypes: types, ...rules };
}

/** The same pod, as the kubelet reports it once it runs. */
export function runningPod(pod: Pod, ip: string): Pod {
  return { ...pod, status: { phase: 'Running', podIP: ip, podIPs: [{ ip }], ...statusDetails } } as unknown as Pod;
}

function policyObject(index: number, ns: number, name: string, spec: NetworkPolicySpec): NetworkPolicy {
  return { metadata: metadata(`p${index}`, name, namespaceName(ns), {}), spec };
}

function podObject(index: number, ns: number, app: number, replica: number, isLocal: boolean): Pod {
  const hash = ((ns * 7919 + app * 104729) >>> 0).toString(36).padStart(8, 'x');
  const labels = { app: appName(app), 'pod-template-hash': hash, tier: app % 2 === 0 ? 'front' : 'back' };
  const name = `${appName(app)}-${hash}-${replica}`;
  const ip = podIp(index);
  // A pod of the measured node has no address before its ADD.
  const status = isLocal
    ? { phase: 'Pending' as const }
    : { phase: 'Running' as const, podIP: ip, podIPs: [{ ip }], ...statusDetails };
  const spec = { nodeName: isLocal ? localNode : `node-${Math.floor(index / podsPerNode)}`, ...specDetails };
  return { metadata: metadata(`u${index}`, name, namespaceName(ns), labels), spec, status } as unknown as Pod;
}

function namespaceObject(index: number): Namespace {
  const name = namespaceName(index);
  const labels = { 'kubernetes.io/metadata.name': name, group: String(index % 30) };
  return { metadata: metadata(`n${index}`, name, undefined, labels) };
}

function nodeObject(name: string, index: number): Node {
  const address = `10.0.${index >>> 8}.${index & 255}`;
  return {
    metadata: metadata(`node${index}`, name, undefined, { 'kubernetes.io/hostname': name }),
    status: { addresses: [{ type: 'InternalIP', address }] },
  };
}

/** With managedFields of the size that they usually have: most of what a list carries is of no use to the agent. */
function metadata(id: string, name: string, namespace: string | undefined, labels: Record<string, string>): ObjectMeta {
  const fieldsV1 = Object.fromEntries(Array.from({ length: 25 }, (_, i) => [`f:field-${i}`, { 'f:value': {} }]));
  return {
    name,
    ...(namespace === undefined ? {} : { namespace }),
    uid: `${id.padStart(8, '0')}-8f2c-4a6e-9b1d-0c5e7a913f42`,
    creationTimestamp: '2026-01-01T00:00:00Z',
    labels,
    managedFields: [{ manager: 'kube-controller-manager', operation: 'Update', apiVersion: 'v1', fieldsV1 }],
  } as unknown as ObjectMeta;
}

/** What an ordinary pod has besides; the agent keeps the ports. */
const specDetails = {
  containers: [
    {
      name: 'main',
      image:
        'registry.example.com/team/application@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef',
      ports: [{ name: 'http', containerPort: 8080, protocol: 'TCP' }],
      env: Array.from({ length: 8 }, (_, i) => ({ name: `SETTING_${i}`, value: `value of setting ${i}` })),
      resources: { requests: { cpu: '100m', memory: '128Mi' }, limits: { memory: '256Mi' } },
      livenessProbe: {
        httpGet: { path: '/healthz', port: 8080, scheme: 'HTTP' },
        timeoutSeconds: 1,
        periodSeconds: 10,
      },
      volumeMounts: [{ name: 'token', readOnly: true, mountPath: '/var/run/secrets/kubernetes.io/serviceaccount' }],
      terminationMessagePath: '/dev/termination-log',
      imagePullPolicy: 'IfNotPresent',
    },
  ],
  volumes: [{ name: 'token', projected: { sources: [{ serviceAccountToken: { expirationSeconds: 3607 } }] } }],
  restartPolicy: 'Always',
  serviceAccountName: 'default',
  tolerations: [
    { key: 'node.kubernetes.io/not-ready', operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 300 },
  ],
};

const statusDetails = {
  conditions: ['Initialized', 'Ready', 'ContainersReady', 'PodScheduled'].map((type) => ({
    type,
    status: 'True',
    lastTransitionTime: '2026-01-01T00:00:00Z',
  })),
  containerStatuses: [{ name: 'main', ready: true, restartCount: 0, containerID: `containerd://${'0a1b'.repeat(16)}` }],
  qosClass: 'Burstable',
};
