/** The objects every cluster has from the start, and the expiry of old events. */
import { stringAt, type KubeObject } from './json.ts';
import { timestamp } from '../../core/timestamp.ts';
import { newUid } from './meta.ts';
import { KeyMissing, RevisionConflict, type Store } from './store.ts';

/** kube-apiserver --event-ttl. */
const eventTtlMs = 3600_000;

export function seedObjects(store: Store, nowMs: number): void {
  for (const name of ['default', 'kube-system', 'kube-public', 'kube-node-lease']) {
    if (store.get('/namespaces', name) !== undefined) continue;
    store.create('/namespaces', name, {
      ...seed('Namespace', { name, labels: { 'kubernetes.io/metadata.name': name } }, nowMs),
      spec: { finalizers: ['kubernetes'] },
      status: { phase: 'Active' },
    });
  }
  if (store.get('/services', 'default/kubernetes') !== undefined) return;
  const labels = { component: 'apiserver', provider: 'kubernetes' };
  store.create('/services', 'default/kubernetes', {
    ...seed('Service', { name: 'kubernetes', namespace: 'default', labels }, nowMs),
    spec: {
      type: 'ClusterIP',
      clusterIP: '10.96.0.1',
      clusterIPs: ['10.96.0.1'],
      ipFamilies: ['IPv4'],
      ipFamilyPolicy: 'SingleStack',
      internalTrafficPolicy: 'Cluster',
      sessionAffinity: 'None',
      ports: [{ name: 'https', port: 443, protocol: 'TCP', targetPort: 6443 }],
    },
    status: { loadBalancer: {} },
  });
}

function seed(kind: string, metadata: KubeObject['metadata'], nowMs: number): KubeObject {
  return { apiVersion: 'v1', kind, metadata: { ...metadata, uid: newUid(), creationTimestamp: timestamp(nowMs) } };
}

export function expireEvents(store: Store, nowMs: number): void {
  for (const event of store.list('/events')) {
    const last =
      stringAt(event, 'series', 'lastObservedTime') ??
      stringAt(event, 'lastTimestamp') ??
      stringAt(event, 'eventTime') ??
      event.metadata.creationTimestamp;
    if (last === undefined || nowMs - Date.parse(last) < eventTtlMs) continue;
    const key = `${event.metadata.namespace ?? ''}/${event.metadata.name}`;
    try {
      store.delete('/events', key, event.metadata.resourceVersion);
    } catch (error) {
      if (!(error instanceof KeyMissing) && !(error instanceof RevisionConflict)) throw error;
    }
  }
}
