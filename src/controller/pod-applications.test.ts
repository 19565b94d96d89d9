import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { OwnerReference, Pod, PodPhase } from '../api/kubernetes.ts';
import { isWatched } from './applications.ts';
import { controllerUid, PodApplications } from './pod-applications.ts';
import { podCopy } from './pod-copy.ts';

const annotations = { 'ipam.spidernet.io/subnet': '{"ipv4":["s"]}', other: 'is not kept' };
const cloneSet = owner('apps.kruise.io/v1alpha1', 'CloneSet', 'web', 'c-1');

function owner(apiVersion: string, kind: string, name: string, uid: string): OwnerReference {
  return { apiVersion, kind, name, uid, controller: true };
}

interface PodOptions {
  readonly by?: OwnerReference;
  readonly phase?: PodPhase;
  readonly extra?: Readonly<Record<string, string>>;
  readonly made?: string;
}

function pod(name: string, { by, phase = 'Pending', extra = {}, made = '2026-01-01T00:00:00Z' }: PodOptions = {}): Pod {
  const ownerReferences = by === undefined ? [] : [by];
  return podCopy({
    metadata: {
      ...{ namespace: 'demo', name, uid: `u-${name}`, creationTimestamp: made, ownerReferences },
      annotations: { ...annotations, ...extra },
    },
    spec: { containers: [] },
    status: { phase },
  });
}

/** An informer of which only the handlers and the index are used. */
function world() {
  const changed: string[] = [];
  const above = new Map<string, OwnerReference>();
  const known = new Map<string, Pod>();
  const handlers = new Map<string, ((pod: Pod) => void)[]>();
  const applications = new PodApplications({ isWatched, above: (uid) => above.get(uid) });
  const informer = {
    on: (event: string, handle: (pod: Pod) => void) => {
      handlers.set(event, [...(handlers.get(event) ?? []), handle]);
      return informer;
    },
    byIndex: (_index: string, uid: string) => [...known.values()].filter((each) => controllerUid(each).includes(uid)),
  };
  applications.start(informer, (key) => changed.push(key));
  const put = (object: Pod): void => {
    const event = known.has(object.metadata?.name ?? '') ? 'update' : 'add';
    known.set(object.metadata?.name ?? '', object);
    handlers.get(event)?.forEach((handle) => handle(object));
  };
  const remove = (name: string): void => {
    const last = known.get(name) ?? assert.fail();
    known.delete(name);
    handlers.get('delete')?.forEach((handle) => handle(last));
  };
  return { applications, changed, above, put, remove };
}

const cloneSetKey = 'apps.kruise.io_v1alpha1/CloneSet/demo/web';

describe('applications known by their pods', () => {
  it('are the owners of kinds that are not watched, as large as they have pods, with the newest one’s annotations', () => {
    const { applications, changed, put, remove } = world();
    put(pod('a', { by: cloneSet }));
    put(pod('b', { by: cloneSet, made: '2026-01-02T00:00:00Z', extra: { 'ipam.spidernet.io/ippool-ip-number': '5' } }));
    put(pod('a', { by: cloneSet, phase: 'Running' }));
    assert.deepEqual(changed, [cloneSetKey, cloneSetKey]);
    const found = applications.find(cloneSetKey);
    assert.equal(found?.podCount, 2);
    assert.equal(found.uid, 'c-1');
    const { 'ipam.spidernet.io/subnet': subnet } = annotations;
    assert.deepEqual(found.annotations, {
      'ipam.spidernet.io/subnet': subnet,
      'ipam.spidernet.io/ippool-ip-number': '5',
    });
    put(pod('b', { by: cloneSet, phase: 'Succeeded' }));
    assert.equal(applications.find(cloneSetKey)?.podCount, 1);
    remove('a');
    remove('b');
    assert.equal(applications.find(cloneSetKey), undefined);
    assert.equal(changed.length, 4);
    assert.deepEqual(applications.keys(), []);
  });

  it('are pods that nobody controls', () => {
    const { applications, put } = world();
    put(pod('alone'));
    const found = applications.find('v1/Pod/demo/alone');
    assert.deepEqual([found?.uid, found?.podCount], ['u-alone', 1]);
    put(pod('alone', { phase: 'Failed' }));
    assert.deepEqual(applications.keys(), []);
  });

  it('are not what is watched, on the host’s network, or asks for nothing', () => {
    const { applications, put } = world();
    put(pod('a', { by: owner('apps/v1', 'ReplicaSet', 'web-1', 'r') }));
    put(pod('b', { by: owner('batch/v1', 'Job', 'once', 'j') }));
    put(podCopy({ metadata: { name: 'c', uid: 'c', annotations }, spec: { hostNetwork: true, containers: [] } }));
    put(podCopy({ metadata: { name: 'd', uid: 'd', annotations: { other: 'x' } }, spec: { containers: [] } }));
    assert.deepEqual(applications.keys(), []);
  });

  it('are above a ReplicaSet or Job, also when that comes to be known after its pods', () => {
    const { applications, above, put } = world();
    put(pod('a', { by: owner('apps/v1', 'ReplicaSet', 'web-1', 'r') }));
    above.set('r', owner('argoproj.io/v1alpha1', 'Rollout', 'web', 'ro'));
    applications.ownerSeen('r');
    assert.equal(applications.find('argoproj.io_v1alpha1/Rollout/demo/web')?.podCount, 1);
  });

  it('of another project’s Job are not those of Kubernetes', () => {
    const { applications, put } = world();
    put(pod('a', { by: owner('batch.volcano.sh/v1alpha1', 'Job', 'train', 'v') }));
    assert.equal(applications.find('batch.volcano.sh_v1alpha1/Job/demo/train')?.podCount, 1);
  });
});
