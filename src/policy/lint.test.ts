import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { KubeObject, NetworkPolicy, NetworkPolicySpec } from '../api/kubernetes.ts';
import { check } from '../core/property.ts';
import { lintCodes, lintPolicies, type Finding } from './lint.ts';
import { evaluate, type World } from './oracle.ts';
import { parsePolicy } from './parse.ts';
import { flowsOf, world as anyWorld } from './world.ts';

const sources = (objects: readonly KubeObject[]) =>
  objects.map((object, index) => ({ file: 'test.yaml', line: index * 10 + 1, object }));
const policy = (name: string, spec: object, namespace = 'demo'): KubeObject => ({
  ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name, namespace } },
  ...{ spec },
});
const deployment = (name: string, app: string, ports: object[] = []): KubeObject =>
  ({
    ...{ apiVersion: 'apps/v1', kind: 'Deployment', metadata: { name, namespace: 'demo' } },
    spec: { template: { metadata: { labels: { app } }, spec: { containers: [{ name: 'c', ports }] } } },
  }) as KubeObject;

const dns = { ports: [{ protocol: 'UDP', port: 53 }, { port: 53 }] };
const told = (findings: readonly Finding[]): string[] =>
  findings.map(({ severity, code, field }) => `${severity} ${code} ${field}`);
const web = [deployment('web', 'web', [{ name: 'http', containerPort: 8080 }]), deployment('client', 'client')];
const onWeb = { podSelector: { matchLabels: { app: 'web' } } };

describe('policy check', () => {
  const rows: [sentence: string, objects: KubeObject[], findings: string[]][] = [
    [
      'finds nothing wrong with a sound policy',
      [
        ...web,
        policy('p', {
          ...onWeb,
          ingress: [
            { from: [{ podSelector: { matchLabels: { app: 'client' } } }], ports: [{ port: 'http' }, { port: 8080 }] },
          ],
        }),
      ],
      [],
    ],
    ['a misspelt field', [policy('p', { podSelektor: {} })], ['error schema spec']],
    [
      'a value of the wrong type',
      [policy('p', { podSelector: {}, ingress: [{ ports: [{ port: {} }] }] })],
      ['error schema spec.ingress[0].ports[0].port'],
    ],
    ['the same name twice', [policy('p', {}), policy('p', {})], ['error duplicate metadata.name']],
    [
      'what the parser refuses',
      [policy('p', { ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/99' } }] }] })],
      ['error invalid spec.ingress[0].from[0].ipBlock.cidr'],
    ],
    [
      'host bits',
      [policy('p', { ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.1/8', except: ['10.1.0.7/16'] } }] }] })],
      [
        'warning host_bits spec.ingress[0].from[0].ipBlock.cidr',
        'warning host_bits spec.ingress[0].from[0].ipBlock.except[0]',
      ],
    ],
    [
      'no host bits in a single address',
      [
        policy('p', {
          ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.1/32' } }, { ipBlock: { cidr: 'fd00::1/128' } }] }],
        }),
      ],
      [],
    ],
    [
      'exceptions that leave nothing',
      [
        policy('p', {
          ingress: [
            { from: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.0.0.0/9', '10.128.0.0/10', '10.192.0.0/10'] } }] },
          ],
        }),
      ],
      ['warning empty_block spec.ingress[0].from[0].ipBlock.except'],
    ],
    [
      'rules of a direction that is no type',
      [policy('p', { policyTypes: ['Ingress'], egress: [{}] })],
      ['warning rules_without_type spec.egress'],
    ],
    ['empty egress without a type', [policy('p', { egress: [] })], ['warning rules_without_type spec.egress']],
    [
      'a policy for nobody',
      [...web, policy('p', { podSelector: { matchLabels: { app: 'wbe' } } })],
      ['warning selects_nothing spec.podSelector'],
    ],
    ['says nothing of pods when there are none', [policy('p', { podSelector: { matchLabels: { app: 'wbe' } } })], []],
    [
      'a peer that is nobody',
      [...web, policy('p', { ...onWeb, ingress: [{ from: [{ podSelector: { matchLabels: { app: 'x' } } }] }] })],
      ['warning peer_selects_nothing spec.ingress[0].from[0]'],
    ],
    [
      'a namespace that is none',
      [...web, policy('p', { ...onWeb, ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: 'x' } } }] }] })],
      ['warning peer_selects_nothing spec.ingress[0].from[0]'],
    ],
    [
      'not kube-system, which every cluster has',
      [
        ...web,
        policy('p', {
          ...onWeb,
          egress: [
            { to: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } } }], ...dns },
          ],
          policyTypes: ['Egress'],
        }),
      ],
      [],
    ],
    [
      'a port nobody declares',
      [...web, policy('p', { ...onWeb, ingress: [{ ports: [{ port: 80 }] }] })],
      ['warning port_not_served spec.ingress[0].ports[0]'],
    ],
    [
      'a range around the declared one is fine',
      [...web, policy('p', { ...onWeb, ingress: [{ ports: [{ port: 8000, endPort: 9000 }] }] })],
      [],
    ],
    [
      'a port name nobody has',
      [...web, policy('p', { ...onWeb, ingress: [{ ports: [{ port: 'https' }] }] })],
      ['warning port_not_served spec.ingress[0].ports[0]'],
    ],
    [
      'the name with another protocol',
      [...web, policy('p', { ...onWeb, ingress: [{ ports: [{ port: 'http', protocol: 'UDP' }] }] })],
      ['warning port_not_served spec.ingress[0].ports[0]'],
    ],
    [
      'a rule inside another',
      [
        policy('p', {
          ingress: [
            { from: [{ podSelector: {} }] },
            { from: [{ podSelector: { matchLabels: { app: 'x' } } }], ports: [{ port: 80 }] },
          ],
        }),
      ],
      ['warning useless_rule spec.ingress[1]'],
    ],
    [
      'a rule inside one of a wider policy',
      [
        policy('all', { podSelector: {}, ingress: [{}] }),
        policy('p', { ...onWeb, ingress: [{ ports: [{ port: 80 }] }] }),
      ],
      ['warning useless_rule spec.ingress[0]'],
    ],
    [
      'not one of a narrower policy',
      [policy('few', { ...onWeb, ingress: [{}] }), policy('p', { ingress: [{ ports: [{ port: 80 }] }] })],
      [],
    ],
    [
      'a block with a hole is no cover',
      [
        policy('p', {
          ingress: [
            { from: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] } }] },
            { from: [{ ipBlock: { cidr: '10.1.2.0/24' } }] },
          ],
        }),
      ],
      [],
    ],
    [
      'of two equal rules the later one',
      [policy('p', { ingress: [{ ports: [{ port: 80 }] }, { ports: [{ port: 80 }] }] })],
      ['warning useless_rule spec.ingress[1]'],
    ],
    [
      'egress without DNS',
      [policy('p', { policyTypes: ['Egress'], egress: [{ ports: [{ port: 443 }] }] })],
      ['warning cuts_dns spec.egress'],
    ],
    [
      'DNS to pods of its own namespace only',
      [policy('p', { policyTypes: ['Egress'], egress: [{ to: [{ podSelector: {} }] }] })],
      ['warning cuts_dns spec.egress'],
    ],
    [
      'DNS allowed by another policy for the same pods',
      [policy('p', { policyTypes: ['Egress'] }), policy('dns', { policyTypes: ['Egress'], egress: [dns] })],
      [],
    ],
    [
      'DNS over UDP only',
      [policy('p', { policyTypes: ['Egress'], egress: [{ ports: [{ protocol: 'UDP', port: 53 }] }] })],
      ['note dns_without_tcp spec.egress'],
    ],
  ];
  for (const [sentence, objects, expected] of rows) {
    it(sentence, () => assert.deepEqual(told(lintPolicies(sources(objects)).findings), expected));
  }

  it('has an example of every code', () => {
    const seen = new Set(rows.flatMap(([, , findings]) => findings.map((text) => text.split(' ')[1])));
    assert.deepEqual([...seen].sort(), Object.keys(lintCodes).sort());
  });

  it('says where: file, line, namespace, policy, and what to do', () => {
    const [finding] = lintPolicies(sources([policy('a', {}), policy('p', { policyTypes: ['Egress'] })])).findings;
    assert.deepEqual(finding && [finding.file, finding.line, finding.namespace, finding.policy], [
      'test.yaml',
      11,
      'demo',
      'p',
    ]);
    assert.match(finding?.message ?? '', /all egress is cut, DNS included/);
    assert.match(finding?.remedy ?? '', /53\/udp/);
  });
});

describe('useless rules', () => {
  it('can be removed without changing a verdict', () => {
    let removed = 0;
    const scenes = anyWorld.chain((world) =>
      fc.tuple(fc.constant(world), fc.array(flowsOf(world), { minLength: 20, maxLength: 30 })),
    );
    check(
      fc.property(scenes, ([world, flows]) => {
        const objects = world.policies.map(({ metadata, spec }) =>
          policy(metadata?.name ?? '', spec ?? {}, metadata?.namespace),
        );
        for (const { code, policy: name, field } of lintPolicies(sources(objects)).findings) {
          if (code !== 'useless_rule') continue;
          removed++;
          const policies = world.policies.map((one) => (one.metadata?.name === name ? without(one, field) : one));
          const after: World = { ...world, policies };
          for (const pod of world.pods.filter(
            ({ spec, status }) => spec?.hostNetwork !== true && status?.phase === 'Running',
          )) {
            for (const flow of flows)
              assert.equal(
                evaluate(after, { ...flow, pod }).verdict,
                evaluate(world, { ...flow, pod }).verdict,
                `${name} ${field}`,
              );
          }
        }
      }),
      { runs: 400 },
    );
    assert.ok(removed > 100, `only ${removed} rules were useless`);
  });
});

function without(one: NetworkPolicy, field: string): NetworkPolicy {
  const [, direction, index] = /^spec\.(ingress|egress)\[(\d+)\]$/.exec(field) ?? [];
  const { isolates } = parsePolicy(one);
  const policyTypes = [...(isolates.ingress ? ['Ingress'] : []), ...(isolates.egress ? ['Egress'] : [])];
  const spec: NetworkPolicySpec = { ...one.spec, policyTypes };
  const rules = direction === 'ingress' ? spec.ingress : spec.egress;
  return { ...one, spec: { ...spec, [direction ?? '']: rules?.filter((_, i) => i !== Number(index)) } };
}
