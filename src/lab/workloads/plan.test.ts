/** The decisions alone: values in, actions out. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Job, Node, Pod, ReplicaSet, Service, StatefulSet } from '../../api/kubernetes.ts';
import { jobs, replicaSets, statefulSets } from '../../api/resources.ts';
import type { Action } from './action.ts';
import { desiredSlices } from './endpoint-slice.ts';
import { planJob } from './job.ts';
import { ownerReference } from './ownership.ts';
import { planReplicaSet } from './replica-set.ts';
import { planRollout, type Rollout } from './rollout.ts';
import { planScheduling } from './scheduler.ts';
import { planStatefulSet } from './stateful-set.ts';
import { revisionHashLabel, templateHash } from './template.ts';

const nowMs = Date.parse('2026-01-01T00:00:00Z');
const labels = { app: 'web' };
const template = { metadata: { labels }, spec: { containers: [{ name: 'c' }] } };

function pod(
  name: string,
  fields: {
    node?: string;
    ready?: boolean;
    owner?: ReplicaSet | StatefulSet;
    terminating?: boolean;
    hash?: string;
  } = {},
): Pod {
  const { node, ready = false, owner, terminating = false, hash } = fields;
  const gvr = owner?.kind === 'StatefulSet' ? statefulSets : replicaSets;
  return {
    metadata: {
      name,
      namespace: 'demo',
      uid: `uid-${name}`,
      creationTimestamp: '2025-12-31T00:00:00Z',
      labels: hash === undefined ? labels : { ...labels, [revisionHashLabel]: hash },
      ...(owner === undefined ? {} : { ownerReferences: [ownerReference(gvr, owner)] }),
      ...(terminating ? { deletionTimestamp: '2025-12-31T00:00:00Z' } : {}),
    },
    spec: { ...template.spec, nodeName: node },
    status: {
      phase: ready ? 'Running' : 'Pending',
      podIPs: [{ ip: `10.0.0.${name.length}` }],
      conditions: [{ type: 'Ready', status: ready ? 'True' : 'False', lastTransitionTime: '2025-12-31T00:00:00Z' }],
    },
  };
}

function node(name: string, extra: Node['spec'] = {}, nodeLabels: Record<string, string> = {}): Node {
  return {
    metadata: { name, labels: nodeLabels },
    spec: extra,
    status: { conditions: [{ type: 'Ready', status: 'True' }] },
  };
}

const set: ReplicaSet = {
  kind: 'ReplicaSet',
  metadata: { name: 'web', namespace: 'demo', uid: 'set', generation: 1 },
  spec: { replicas: 2, selector: { matchLabels: labels }, template },
};

function verbs(actions: readonly Action[]): string[] {
  return actions.map(
    ({ verb, gvr, object }) => `${verb} ${gvr.plural} ${object.metadata?.name ?? object.metadata?.generateName}`,
  );
}

describe('ReplicaSet', () => {
  it('creates what is missing and reports it', () => {
    assert.deepEqual(verbs(planReplicaSet(set, [], nowMs)), [
      'create pods web-',
      'create pods web-',
      'status replicasets web',
    ]);
  });

  it('adopts an orphan that matches before it creates anything', () => {
    assert.equal(verbs(planReplicaSet(set, [pod('a')], nowMs))[0], 'patch pods a');
    assert.ok(!verbs(planReplicaSet(set, [pod('a')], nowMs)).some((verb) => verb.startsWith('create')));
  });

  it('gives up the unscheduled, then the unready pod first, and does not count terminating ones', () => {
    const pods = [
      pod('ready', { node: 'n1', ready: true, owner: set }),
      pod('waiting', { owner: set }),
      pod('unready', { node: 'n2', owner: set }),
      pod('other', { node: 'n2', ready: true, owner: set }),
      pod('leaving', { node: 'n2', owner: set, terminating: true }),
    ];
    const deleted = verbs(planReplicaSet(set, pods, nowMs)).filter((verb) => verb.startsWith('delete'));
    assert.deepEqual(deleted, ['delete pods waiting', 'delete pods unready']);
  });

  it('leaves the pods of another owner alone', () => {
    const other = { ...set, metadata: { ...set.metadata, uid: 'other' } };
    const pods = [pod('x', { owner: other }), pod('y', { owner: other }), pod('z', { owner: other })];
    assert.ok(
      !verbs(planReplicaSet(set, pods, nowMs)).some((verb) => verb.startsWith('delete') || verb.startsWith('patch')),
    );
  });
});

describe('rollout', () => {
  const revision = (replicas: number, available = replicas): Rollout['old'][number] => ({
    replicas,
    available,
    active: replicas,
    existing: replicas,
  });
  const base: Rollout = {
    desired: 4,
    paused: false,
    recreate: false,
    maxSurge: '25%',
    maxUnavailable: '25%',
    current: revision(0),
    old: [revision(4)],
  };

  it('keeps within surge and unavailability at every step until only the new revision is left', () => {
    let rollout = base;
    for (let step = 0; step < 40; step++) {
      const wanted = planRollout(rollout);
      const old = wanted.old[0] ?? 0;
      assert.ok(wanted.current + old <= 5, `step ${step}: ${wanted.current} + ${old} pods`);
      // What grows becomes available a step later.
      const available = Math.min(rollout.current?.replicas ?? 0, wanted.current);
      assert.ok(available + old >= 3, `step ${step}: ${available} + ${old} available`);
      rollout = { ...rollout, current: revision(wanted.current, available), old: [revision(old)] };
    }
    assert.deepEqual(planRollout(rollout), { current: 4, old: [0] });
  });

  it('takes broken old pods away although the new ones are not available', () => {
    const wanted = planRollout({
      ...base,
      desired: 2,
      maxUnavailable: 0,
      maxSurge: 1,
      current: revision(1, 0),
      old: [revision(2, 2), revision(1, 0)],
    });
    assert.deepEqual(wanted, { current: 1, old: [2, 0] });
  });

  it('waits under Recreate until the old pods are gone', () => {
    const recreate = { ...base, recreate: true };
    assert.deepEqual(planRollout(recreate), { current: 0, old: [0] });
    assert.deepEqual(planRollout({ ...recreate, old: [{ ...revision(0), existing: 1 }] }), { current: 0, old: [0] });
    assert.deepEqual(planRollout({ ...recreate, old: [revision(0)] }), { current: 4, old: [0] });
  });

  it('moves nothing while paused', () => {
    assert.deepEqual(planRollout({ ...base, paused: true, current: revision(1), old: [revision(3)] }), {
      current: 1,
      old: [3],
    });
  });
});

describe('Job', () => {
  const selector = { matchLabels: labels };
  const job = (spec: Partial<NonNullable<Job['spec']>>, status: Job['status'] = {}): Job => ({
    metadata: { name: 'once', namespace: 'demo', uid: 'uid-once' },
    spec: { selector, template, ...spec },
    status,
  });
  const podIn = (phase: string, count: number): Pod[] =>
    Array.from({ length: count }, (_, n) => {
      const made = pod(`${phase}-${n}`);
      const metadata = { ...made.metadata, ownerReferences: [ownerReference(jobs, job({}))] };
      return { ...made, metadata, status: { ...made.status, phase } as Pod['status'] };
    });
  const plan = (spec: Partial<NonNullable<Job['spec']>>, pods: readonly Pod[]): string => {
    const actions = planJob(job(spec), pods, nowMs);
    const count = (verb: string): number => actions.filter((action) => action.verb === verb).length;
    const { status } = (actions.find(({ verb }) => verb === 'status')?.object ?? {}) as Job;
    const counted = `${status?.active}/${status?.succeeded}/${status?.failed}`;
    return `+${count('create')} -${count('delete')} ${counted} ${status?.conditions?.[0]?.type ?? ''}`.trimEnd();
  };

  it('has as many pods as it may until enough have succeeded', () => {
    assert.equal(plan({ completions: 5, parallelism: 3 }, []), '+3 -0 0/0/0');
    assert.equal(
      plan({ completions: 5, parallelism: 3 }, [...podIn('Running', 2), ...podIn('Succeeded', 1)]),
      '+1 -0 2/1/0',
    );
    assert.equal(
      plan({ completions: 5, parallelism: 3 }, [...podIn('Running', 1), ...podIn('Succeeded', 4)]),
      '+0 -0 1/4/0',
    );
    assert.equal(plan({ completions: 5, parallelism: 3 }, podIn('Succeeded', 5)), '+0 -0 0/5/0 Complete');
    assert.equal(plan({ completions: 5, parallelism: 3, suspend: true }, podIn('Running', 2)), '+0 -2 2/0/0');
  });

  it('without completions ends with the first that succeeds, when the others have ended', () => {
    assert.equal(plan({ parallelism: 2 }, [...podIn('Running', 1), ...podIn('Succeeded', 1)]), '+0 -0 1/1/0');
    assert.equal(plan({ parallelism: 2 }, podIn('Succeeded', 2)), '+0 -0 0/2/0 Complete');
  });

  it('replaces failed pods up to the limit, then gives up and takes the others away', () => {
    const spec = { completions: 2, parallelism: 2, backoffLimit: 1 };
    assert.equal(plan(spec, [...podIn('Running', 1), ...podIn('Failed', 1)]), '+1 -0 1/0/1');
    assert.equal(plan(spec, [...podIn('Running', 1), ...podIn('Failed', 2)]), '+0 -1 0/0/2 Failed');
  });

  it('is left alone when it has ended, and goes when its time is over', () => {
    const conditions = [{ type: 'Complete', status: 'True', lastTransitionTime: '2025-12-31T23:59:50Z' }] as const;
    const after = (spec: Partial<NonNullable<Job['spec']>>): string[] =>
      planJob(job(spec, { conditions }), [], nowMs).map(({ verb, gvr }) => `${verb} ${gvr.plural}`);
    assert.deepEqual(after({ completions: 3 }), []);
    assert.deepEqual(after({ ttlSecondsAfterFinished: 11 }), []);
    assert.deepEqual(after({ ttlSecondsAfterFinished: 10 }), ['delete jobs']);
  });
});

describe('StatefulSet', () => {
  const stateful: StatefulSet = {
    kind: 'StatefulSet',
    metadata: { name: 'db', namespace: 'demo', uid: 'db', generation: 1 },
    spec: { replicas: 3, serviceName: 'db', selector: { matchLabels: labels }, template },
  };
  const hash = `db-${templateHash(template)}`;
  const member = (ordinal: number, fields: Parameters<typeof pod>[1] = {}): Pod =>
    pod(`db-${ordinal}`, { ready: true, hash, owner: stateful, ...fields });
  const podVerbs = (pods: readonly Pod[], of = stateful): string[] =>
    verbs(planStatefulSet(of, pods)).filter((verb) => verb.includes(' pods '));

  it('starts one after the other', () => {
    assert.deepEqual(podVerbs([]), ['create pods db-0']);
    assert.deepEqual(podVerbs([member(0, { ready: false })]), []);
    assert.deepEqual(podVerbs([member(0)]), ['create pods db-1']);
  });

  it('scales down from the top, one at a time', () => {
    const one = { ...stateful, spec: { ...stateful.spec, replicas: 1, selector: { matchLabels: labels }, template } };
    assert.deepEqual(
      podVerbs(
        [0, 1, 2].map((ordinal) => member(ordinal)),
        one,
      ),
      ['delete pods db-2'],
    );
    assert.deepEqual(podVerbs([member(0), member(1), member(2, { terminating: true })], one), []);
  });

  it('updates from the top when all are ready', () => {
    assert.deepEqual(podVerbs([0, 1, 2].map((ordinal) => member(ordinal, { hash: 'old' }))), ['delete pods db-2']);
    assert.deepEqual(
      podVerbs([member(0, { hash: 'old' }), member(1, { hash: 'old' }), member(2, { ready: false })]),
      [],
    );
  });
});

describe('scheduler', () => {
  it('puts two replicas on two nodes', () => {
    const decisions = planScheduling(
      [pod('a', { owner: set }), pod('b', { owner: set })],
      [node('n1'), node('n2')],
      new Map(),
    );
    assert.deepEqual(new Set(decisions.map(({ nodeName }) => nodeName)), new Set(['n1', 'n2']));
  });

  it('counts bindings that do not show yet', () => {
    const [decision] = planScheduling(
      [pod('a', { owner: set }), pod('b', { owner: set })],
      [node('n1'), node('n2')],
      new Map([['uid-a', 'n1']]),
    );
    assert.equal(decision?.nodeName, 'n2');
  });

  it('leaves pods to the scheduler that they name', () => {
    const foreign = { ...pod('a'), spec: { ...template.spec, schedulerName: 'another' } };
    assert.deepEqual(planScheduling([foreign], [node('n1')], new Map()), []);
  });

  it('says why no node fits, as Kubernetes does', () => {
    const wanting = { ...pod('a'), spec: { ...template.spec, nodeSelector: { disk: 'ssd' } } };
    const nodes = [
      node('n1', { unschedulable: true }),
      node('n2'),
      node('n3', { taints: [{ key: 'gpu', effect: 'NoSchedule' }] }),
    ];
    const [decision] = planScheduling([wanting], nodes, new Map());
    assert.equal(
      decision?.reason,
      "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {gpu: }, 1 node(s) were unschedulable.",
    );
    const fitting = planScheduling([wanting], [...nodes, node('n4', {}, { disk: 'ssd' })], new Map());
    assert.equal(fitting[0]?.nodeName, 'n4');
  });
});

describe('EndpointSlice', () => {
  const service: Service = {
    metadata: { name: 'web', namespace: 'demo', uid: 'svc' },
    spec: { selector: labels, ipFamilies: ['IPv4'], ports: [{ name: 'http', port: 80, targetPort: 'web' }] },
  };
  const serving = (name: string, port: number, ready: boolean): Pod => {
    const base = pod(name, { node: 'n1', ready });
    return { ...base, spec: { containers: [{ name: 'c', ports: [{ name: 'web', containerPort: port }] }] } };
  };

  it('groups pods by what a named port means to them, and says who is ready', () => {
    const slices = desiredSlices(service, [
      serving('a', 8080, true),
      serving('bb', 8080, false),
      serving('ccc', 9090, true),
    ]);
    assert.deepEqual(
      slices.map(({ ports, endpoints }) => [
        ports?.[0]?.port,
        endpoints.map(({ addresses, conditions }) => [addresses[0], conditions?.ready]),
      ]),
      [
        [
          8080,
          [
            ['10.0.0.1', true],
            ['10.0.0.2', false],
          ],
        ],
        [9090, [['10.0.0.3', true]]],
      ],
    );
  });

  it('is absent without a selector', () => {
    assert.deepEqual(
      desiredSlices({ ...service, spec: { ...service.spec, selector: {} } }, [serving('a', 1, true)]),
      [],
    );
  });
});
