/**
 * What the API server refuses can still reach an agent: made before a validation existed, or written past it. One bad
 * policy never stops the others, and never opens what it was meant to close.
 */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type {
  NetworkPolicy,
  NetworkPolicyPeer,
  NetworkPolicyPort,
  NetworkPolicySpec,
  Pod,
} from '../../src/api/kubernetes.ts';
import { check } from '../../src/core/property.ts';
import type { LabelSelector } from '../../src/core/labels.ts';
import { startTestApiServer } from '../../src/lab/api/testing.ts';
import { ContractClient } from '../../src/lab/contract/client.ts';
import { evaluate, type World } from '../../src/policy/oracle.ts';
import { parsePolicy } from '../../src/policy/parse.ts';
import { flowsOf, world as anyWorld } from '../../src/policy/world.ts';
import { compileWorld, simulatedVerdict } from './compiler.ts';

const selector = (operator: string, values?: string[]): LabelSelector => ({
  matchExpressions: [{ key: 'app', operator, ...(values && { values }) }],
});

const badPeers: Readonly<Record<string, NetworkPolicyPeer>> = {
  'no peer': {},
  'an ipBlock beside a selector': { ipBlock: { cidr: '0.0.0.0/0' }, podSelector: {} },
  'no cidr': { ipBlock: { cidr: '10.0.0.0/33' } },
  'an address for a cidr': { ipBlock: { cidr: '10.0.0.1' } },
  'a cidr with leading zeros': { ipBlock: { cidr: '010.0.0.0/8' } },
  'an except outside its cidr': { ipBlock: { cidr: '10.0.0.0/8', except: ['11.0.0.0/16'] } },
  'an except that is no cidr': { ipBlock: { cidr: '0.0.0.0/0', except: ['10.0.0.0/8', 'x'] } },
  'an except of the other family': { ipBlock: { cidr: '0.0.0.0/0', except: ['::/0'] } },
  'an unknown operator': { podSelector: selector('Gt', ['1']) },
  'In without values': { namespaceSelector: selector('In') },
  'Exists with values': { podSelector: selector('Exists', ['a']) },
};
const badPorts: Readonly<Record<string, NetworkPolicyPort>> = {
  'an unknown protocol': { protocol: 'ICMP' },
  'a protocol in lower case': { protocol: 'tcp', port: 80 },
  'port 0': { port: 0 },
  'a port that is none': { port: 65_536 },
  'half a port': { port: 80.5 },
  'an empty port name': { port: '' },
  'an endPort below its port': { port: 80, endPort: 79 },
  'an endPort without a port': { endPort: 80 },
  'an endPort beside a name': { port: 'http', endPort: 80 },
  'an endPort that is none': { port: 80, endPort: 65_536 },
};

/** One rule of each direction with the bad part beside good ones: the whole rule must allow nothing. */
const badSpecs: readonly (readonly [string, NetworkPolicySpec])[] = [
  ...Object.entries(badPeers).map(([name, peer]): [string, NetworkPolicySpec] => {
    const peers = [{ podSelector: {}, namespaceSelector: {} }, peer, { ipBlock: { cidr: '::/0' } }];
    return [name, { ingress: [{ from: peers }], egress: [{ to: peers }] }];
  }),
  ...Object.entries(badPorts).map(([name, port]): [string, NetworkPolicySpec] => {
    const ports = [{ port: 80 }, port, { protocol: 'UDP' }];
    return [name, { ingress: [{ ports }], egress: [{ ports }] }];
  }),
  [
    'a subject that is not understood',
    { podSelector: selector('Gt', ['1']), policyTypes: ['Ingress', 'Egress'], ingress: [{}], egress: [{}] },
  ],
  ['only policy types that are none', { policyTypes: ['Sideways', 'ingress'], egress: [{ to: [{}] }] }],
];

const bad = (spec: NetworkPolicySpec, namespace = 'red'): NetworkPolicy => ({
  metadata: { namespace, name: 'bad', uid: 'bad' },
  spec: { podSelector: {}, ...spec },
});
const isProtected = (pod: Pod): boolean => pod.spec?.hostNetwork !== true && pod.status?.phase === 'Running';

describe('a bad policy', () => {
  for (const [name, spec] of badSpecs) {
    it(`with ${name} isolates what it selects, allows nothing and says what is wrong`, () => {
      const { isolates, rules, diagnostics } = parsePolicy(bad(spec));
      assert.deepEqual(isolates, { ingress: true, egress: true });
      assert.deepEqual(rules, []);
      assert.ok(diagnostics.length > 0);
      for (const { severity, field, message, remedy } of diagnostics) {
        assert.equal(severity, 'error');
        assert.match(field, /^spec\./);
        assert.ok(message !== '' && remedy !== '');
      }
    });
  }

  it('opens nothing, and changes nothing for pods that it does not select', () => {
    let [closed, untouched] = [0, 0];
    const scenes = anyWorld
      .filter(({ pods }) => pods.some(isProtected))
      .chain((world) =>
        fc.tuple(
          fc.constant(world),
          fc.constantFrom(...badSpecs).map(([, spec]) => bad(spec)),
          fc.array(flowsOf(world), { minLength: 20, maxLength: 40 }),
        ),
      );
    check(
      fc.property(scenes, ([world, policy, flows]) => {
        const worse: World = { ...world, policies: [...world.policies, policy] };
        const [before, after] = [compileWorld(world), compileWorld(worse)];
        for (const pod of world.pods.filter(isProtected)) {
          const [old, now] = [before.policyOf(pod), after.policyOf(pod)];
          for (const flow of flows) {
            const was = simulatedVerdict(before, old, flow);
            const is = simulatedVerdict(after, now, flow);
            assert.equal(is, evaluate(worse, { ...flow, pod }).verdict);
            if (pod.metadata?.namespace !== 'red') {
              assert.equal(is, was);
              untouched++;
            } else {
              assert.ok(!(was === 'deny' && is === 'allow'), 'the bad policy opened something');
              if (was === 'allow' && is === 'deny') closed++;
            }
          }
        }
      }),
      { runs: 300 },
    );
    assert.ok(closed > 100 && untouched > 100, `${closed} closed, ${untouched} untouched`);
  });

  it('does not stop the good rules beside it, nor those of other policies', () => {
    for (const [, spec] of badSpecs) {
      const good: NetworkPolicySpec = { policyTypes: ['Ingress', 'Egress'], ingress: [{}], egress: [{}] };
      const policies = [bad(spec), { metadata: { namespace: 'red', name: 'good', uid: 'good' }, spec: good }];
      const pod: Pod = {
        metadata: { namespace: 'red', name: 'pod', uid: 'pod' },
        spec: { containers: [] },
        status: { phase: 'Running', podIPs: [{ ip: '10.1.0.1' }] },
      };
      const { entries, isolated, diagnostics } = compileWorld({
        pods: [pod],
        namespaces: [],
        nodes: [],
        nodeName: 'n',
        policies,
      }).policyOf(pod);
      assert.deepEqual(isolated, { ingress: true, egress: true });
      assert.deepEqual(entries.map(({ direction, identity, protocol }) => [direction, identity, protocol]).sort(), [
        ['egress', 0, 0],
        ['ingress', 0, 0],
        ['ingress', 1, 0],
      ]);
      assert.ok(diagnostics.every(({ policy }) => policy === 'bad'));
      // Within one policy, too: the second rule stands although the first is bad.
      const mixed = parsePolicy(bad({ ...spec, podSelector: {}, ingress: [...(spec.ingress ?? []), {}] }));
      assert.equal(mixed.rules.filter(({ direction }) => direction === 'ingress').length, spec.podSelector ? 2 : 1);
    }
  });
});

describe('a policy that works but may not mean what was meant', () => {
  it('with host bits in a cidr is accepted with a warning, and taken without the bits', async () => {
    const server = await startTestApiServer();
    const { url, credentials } = server;
    const client = new ContractClient({ url, caCert: credentials.caCert, token: credentials.token });
    try {
      const answer = await client.post('/apis/networking.k8s.io/v1/namespaces/default/networkpolicies', {
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: { name: 'bits' },
        spec: { podSelector: {}, egress: [{ to: [{ ipBlock: { cidr: '10.0.0.5/8' } }] }] },
      });
      assert.equal(answer.status, 201, answer.text);
      assert.equal(
        answer.headers.warning,
        '299 - "spec.egress[0].to[0].ipBlock.cidr: CIDR value \\"10.0.0.5/8\\" is ambiguous in this context ' +
          '(should be \\"10.0.0.0/8\\" or \\"10.0.0.5/32\\"?)"',
      );
    } finally {
      client.close();
      await server.close();
    }
    const [rule] = parsePolicy(bad({ egress: [{ to: [{ ipBlock: { cidr: '10.0.0.5/8' } }] }] })).rules;
    assert.equal(rule?.peers?.[0]?.kind === 'prefix' ? rule.peers[0].cidr : '', '10.0.0.0/8');
  });
});
