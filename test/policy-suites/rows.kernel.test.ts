/** Rows of the checklist that neither the suites nor the lab show, judged by the kernel. */

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { NetworkPolicySpec, Node, Pod, PodPhase } from '../../src/api/kubernetes.ts';
import { parseIp, type IpAddress } from '../../src/core/ip.ts';
import { whyNoKernelTests } from '../../src/datapath/test-bed.ts';
import { evaluate, type World } from '../../src/policy/oracle.ts';
import { compileWorld } from './compiler.ts';
import { KernelJudge, ownAddress } from './kernel-judge.ts';

const reason = whyNoKernelTests();
const ipOf = (text: string): IpAddress => parseIp(text) as IpAddress;

function pod(name: string, ips: readonly string[], more: { phase?: PodPhase } = {}): Pod {
  return {
    metadata: { namespace: 'demo', name, uid: name, labels: { app: name } },
    spec: { nodeName: 'n1', containers: [] },
    status: { phase: more.phase ?? 'Running', podIP: ips[0] ?? '', podIPs: ips.map((ip) => ({ ip })) },
  };
}

const node = (name: string, ...addresses: string[]): Node => ({
  metadata: { name },
  status: { addresses: addresses.map((address) => ({ type: 'InternalIP', address })) },
});

describe('rows of the checklist, in the kernel', { skip: reason ?? false }, () => {
  let judge: KernelJudge;
  before(() => {
    judge = new KernelJudge();
  });
  after(() => judge[Symbol.dispose]());

  type Expected = readonly [direction: 'ingress' | 'egress', peer: string, port: number, verdict: 'allow' | 'deny'];

  /** The verdicts on TCP flows of the first pod, by the kernel and by the oracle. */
  function check(pods: readonly [Pod, ...Pod[]], spec: NetworkPolicySpec, expected: readonly Expected[]): void {
    const world: World = {
      pods,
      namespaces: [{ metadata: { name: 'demo', labels: {} } }],
      nodes: [node('n1', '10.9.0.1', 'fd00:9::1'), node('n2', '10.9.0.2', 'fd00:9::2')],
      nodeName: 'n1',
      policies: [{ metadata: { namespace: 'demo', name: 'p', uid: 'p' }, spec }],
    };
    const [own] = pods;
    const compiled = compileWorld(world);
    judge.setAddresses(compiled);
    judge.setPolicy(compiled.policyOf(own));
    for (const [direction, peer, port, verdict] of expected) {
      const flow = { direction, peer: ipOf(peer), protocol: 'TCP', port };
      const address = ipOf(ownAddress(own, flow.peer) ?? '');
      assert.equal(judge.verdict(flow, address), verdict, `${direction} ${peer} ${port}, the kernel`);
      assert.equal(evaluate(world, { ...flow, pod: own }).verdict, verdict, `${direction} ${peer} ${port}, the oracle`);
    }
  }

  const web = pod('web', ['10.1.0.1', 'fd00:1::1']);
  const db = pod('db', ['10.1.0.2', 'fd00:1::2']);
  const select = (app: string) => ({ podSelector: { matchLabels: { app } } });

  it('row 13: the node passes whatever the policy, also when an ipBlock names its address', () => {
    const spec: NetworkPolicySpec = {
      policyTypes: ['Ingress', 'Egress'],
      ingress: [{ from: [{ ipBlock: { cidr: '10.9.0.0/24', except: ['10.9.0.1/32'] } }], ports: [{ port: 80 }] }],
    };
    check([web, db], spec, [
      ['ingress', '10.9.0.1', 22, 'allow'],
      ['ingress', 'fd00:9::1', 22, 'allow'],
      ['ingress', '10.9.0.2', 80, 'allow'],
      ['ingress', '10.9.0.2', 22, 'deny'],
      ['egress', '10.9.0.1', 22, 'deny'],
    ]);
  });

  it('row 15: pods that have ended mean nobody, and whoever has their address now is judged as itself', () => {
    const spec: NetworkPolicySpec = { ingress: [{ from: [select('friend')] }] };
    const ended = (phase: PodPhase): Pod => pod('friend', ['10.1.0.7', 'fd00:1::7'], { phase });
    for (const phase of ['Succeeded', 'Failed'] as const) {
      check([web, ended(phase)], spec, [['ingress', '10.1.0.7', 80, 'deny']]);
      const stranger = pod('stranger', ['10.1.0.7', 'fd00:1::7']);
      for (const pods of [
        [ended(phase), stranger],
        [stranger, ended(phase)],
      ]) {
        check([web, ...pods], spec, [
          ['ingress', '10.1.0.7', 80, 'deny'],
          ['ingress', 'fd00:1::7', 80, 'deny'],
        ]);
        check([web, ...pods], { ingress: [{ from: [select('stranger')] }] }, [
          ['ingress', '10.1.0.7', 80, 'allow'],
          ['ingress', 'fd00:1::7', 80, 'allow'],
        ]);
      }
    }
    check([web, ended('Running')], spec, [['ingress', '10.1.0.7', 80, 'allow']]);
  });

  it('row 18: a policy means backends, not the address of a Service, and a masqueraded source is a node', () => {
    const spec: NetworkPolicySpec = {
      policyTypes: ['Ingress', 'Egress'],
      ingress: [{ from: [select('db')] }],
      egress: [{ to: [select('db')], ports: [{ port: 5432 }] }],
    };
    check([web, db], spec, [
      ['egress', '10.1.0.2', 5432, 'allow'],
      // The cluster IP of a Service of the same pods, untranslated.
      ['egress', '10.96.0.10', 5432, 'deny'],
      // What reaches us through a Service with our own node's address, and with another's.
      ['ingress', '10.9.0.1', 80, 'allow'],
      ['ingress', '10.9.0.2', 80, 'deny'],
    ]);
    // Nor does an ipBlock around Services open the backends behind them.
    const services: NetworkPolicySpec = {
      policyTypes: ['Egress'],
      egress: [{ to: [{ ipBlock: { cidr: '10.96.0.0/12' } }] }],
    };
    check([web, db], services, [
      ['egress', '10.96.0.10', 5432, 'allow'],
      ['egress', '10.1.0.2', 5432, 'deny'],
    ]);
  });

  it('row 19: every address of a pod means it, in whichever order they stand', () => {
    const spec: NetworkPolicySpec = { policyTypes: ['Egress'], egress: [{ to: [select('db')] }] };
    const addresses = ['10.1.0.2', 'fd00:1::2', '10.1.5.2', 'fd00:5::2'];
    for (const ips of [addresses, [...addresses].reverse()]) {
      check([web, pod('db', ips), pod('other', ['10.1.0.3', 'fd00:1::3'])], spec, [
        ...ips.map((ip): Expected => ['egress', ip, 80, 'allow']),
        ['egress', '10.1.0.3', 80, 'deny'],
        ['egress', 'fd00:1::3', 80, 'deny'],
      ]);
    }
  });
});
