/** Contract: NetworkPolicy, from upstream's "Netpol API" cases, and every bad input that people send. */
import assert from 'node:assert/strict';
import type { JsonObject } from '../api/json.ts';
import { objectsAt, stringAt, valueAt } from '../api/json.ts';
import type { ContractCase } from './case.ts';
import { mergePatch, type Answer, type ContractClient } from './client.ts';

const groupVersion = 'networking.k8s.io/v1';
const policies = (client: ContractClient): string => client.own('networkpolicies', groupVersion);

function policy(name: string, spec: object, labels: Record<string, string> = {}): JsonObject {
  return { apiVersion: groupVersion, kind: 'NetworkPolicy', metadata: { name, labels }, spec: spec as JsonObject };
}

const egressPort = (port: object): object => ({ podSelector: {}, egress: [{ ports: [port] }] });
const ingressPeer = (peer: object): object => ({ podSelector: {}, ingress: [{ from: [peer] }] });
const expression = (item: object): object => ingressPeer({ podSelector: { matchExpressions: [item] } });

/** What is sent, and how the text after `NetworkPolicy.networking.k8s.io "NAME" is invalid: ` begins. */
const refused: readonly (readonly [name: string, spec: object, message: string])[] = [
  [
    'an unknown protocol',
    egressPort({ protocol: 'ICMP', port: 80 }),
    'spec.egress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: ',
  ],
  [
    'a port that is none',
    egressPort({ port: 65_536 }),
    'spec.egress[0].ports[0].port: Invalid value: 65536: must be between 1 and 65535, inclusive',
  ],
  [
    'an endPort below its port',
    egressPort({ port: 30_000, endPort: 20_000 }),
    'spec.egress[0].ports[0].endPort: Invalid value: 30000: must be greater than or equal to `port`',
  ],
  [
    'an endPort that is no port',
    egressPort({ port: 80, endPort: 65_536 }),
    'spec.egress[0].ports[0].endPort: Invalid value: 65536: must be between 1 and 65535, inclusive',
  ],
  [
    'an endPort without a port',
    egressPort({ endPort: 20_000 }),
    'spec.egress[0].ports[0].endPort: Invalid value: 20000: may not be specified when `port` is not specified',
  ],
  [
    'an endPort beside a port name',
    egressPort({ port: 'serve-80', endPort: 20_000 }),
    'spec.egress[0].ports[0].endPort: Invalid value: 20000: may not be specified when `port` is non-numeric',
  ],
  [
    'a port name that no container may have',
    egressPort({ port: 'Web_Server' }),
    'spec.egress[0].ports[0].port: Invalid value: "Web_Server": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)',
  ],
  [
    'a cidr that is none',
    ingressPeer({ ipBlock: { cidr: '10.0.0.0/33' } }),
    'spec.ingress[0].from[0].ipBlock.cidr: Invalid value: "10.0.0.0/33": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)',
  ],
  [
    'an address where a cidr must be',
    ingressPeer({ ipBlock: { cidr: '10.0.0.1' } }),
    'spec.ingress[0].from[0].ipBlock.cidr: Invalid value: "10.0.0.1": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)',
  ],
  ['an empty cidr', ingressPeer({ ipBlock: { cidr: '' } }), 'spec.ingress[0].from[0].ipBlock.cidr: Required value'],
  [
    'an except outside its cidr',
    ingressPeer({ ipBlock: { cidr: '10.0.0.0/8', except: ['11.0.0.0/16'] } }),
    'spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`',
  ],
  [
    'an except of the whole cidr',
    ingressPeer({ ipBlock: { cidr: '10.0.0.0/8', except: ['10.0.0.0/8'] } }),
    'spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`',
  ],
  [
    'an except of the other family',
    ingressPeer({ ipBlock: { cidr: '0.0.0.0/0', except: ['2001:db8::/32'] } }),
    'spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "2001:db8::/32": must be a strict subset of `cidr`',
  ],
  ['an empty peer', ingressPeer({}), 'spec.ingress[0].from[0]: Required value: must specify a peer'],
  [
    'an ipBlock beside a selector',
    ingressPeer({ ipBlock: { cidr: '10.0.0.0/8' }, podSelector: {} }),
    'spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer',
  ],
  [
    'an unknown operator',
    expression({ key: 'app', operator: 'Gt', values: ['1'] }),
    'spec.ingress[0].from[0].podSelector.matchExpressions[0].operator: Invalid value: "Gt": not a valid selector operator',
  ],
  [
    'In without values',
    expression({ key: 'app', operator: 'In' }),
    "spec.ingress[0].from[0].podSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
  ],
  [
    'Exists with values',
    expression({ key: 'app', operator: 'Exists', values: ['a'] }),
    "spec.ingress[0].from[0].podSelector.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
  ],
  [
    'a label value that no label may have',
    { podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: ['not ok'] }] } },
    'spec.podSelector.matchExpressions[0].values[0]: Invalid value: "not ok": a valid label must be an empty string or',
  ],
  [
    'an unknown policy type',
    { podSelector: {}, policyTypes: ['Sideways'] },
    'spec.policyTypes[0]: Unsupported value: "Sideways": supported values: ',
  ],
  [
    'three policy types',
    { podSelector: {}, policyTypes: ['Ingress', 'Egress', 'Ingress'] },
    'spec.policyTypes: Invalid value: ',
  ],
];

const refusals: readonly ContractCase[] = refused.map(([name, spec, message]) => ({
  name: `a network policy with ${name} is refused, and the answer says why`,
  run: async (client) => {
    const answer = await client.post(policies(client), policy('bad', spec));
    assert.equal(answer.status, 422, answer.text);
    const said = stringAt(answer.body, 'message') ?? '';
    const expected = `NetworkPolicy.networking.k8s.io "bad" is invalid: ${message}`;
    assert.equal(said.slice(0, expected.length), expected);
    assert.equal((await client.get(`${policies(client)}/bad`)).status, 404);
  },
}));

const accepted: readonly (readonly [name: string, spec: object])[] = [
  ['an endPort equal to its port', egressPort({ port: 20_000, endPort: 20_000 })],
  ['an endPort above its port', egressPort({ port: 10_000, endPort: 20_000 })],
  ['a protocol without a port', egressPort({ protocol: 'SCTP' })],
  ['a cidr with host bits', ingressPeer({ ipBlock: { cidr: '10.0.0.5/8' } })],
  ['the same policy type twice', { podSelector: {}, policyTypes: ['Ingress', 'Ingress'] }],
  ['both selectors in one peer', ingressPeer({ podSelector: {}, namespaceSelector: {} })],
];

const acceptances: readonly ContractCase[] = accepted.map(([name, spec]) => ({
  name: `a network policy with ${name} is accepted`,
  run: async (client) => {
    const answer = await client.post(policies(client), policy('good', spec));
    assert.equal(answer.status, 201, answer.text);
  },
}));

export const networkPolicyCases: readonly ContractCase[] = [
  ...refusals,
  ...acceptances,
  {
    name: 'a network policy with an unknown field is refused by strict validation and named in a warning otherwise',
    run: async (client) => {
      const misspelt = (name: string): JsonObject => policy(name, { podSelector: {}, ingres: [{}] });
      const strict = await client.post(`${policies(client)}?fieldValidation=Strict`, misspelt('strict'));
      assert.equal(strict.status, 400);
      const said = stringAt(strict.body, 'message') ?? '';
      assert.match(said, /^NetworkPolicy in version "v1" cannot be handled as a NetworkPolicy: /);
      assert.match(said, /strict decoding error: unknown field "spec\.ingres"$/);
      const warned = await client.post(policies(client), misspelt('warned'));
      assert.equal(warned.status, 201);
      assert.equal(warned.headers.warning, '299 - "unknown field \\"spec.ingres\\""');
    },
  },
  {
    name: 'a bad update of a network policy leaves the policy as it was',
    run: async (client) => {
      const path = `${policies(client)}/kept`;
      const made = await client.post(policies(client), policy('kept', egressPort({ port: 80 })));
      const update = { spec: { egress: [{ ports: [{ port: 80, endPort: 79 }] }] } };
      const answer = await client.patch(path, mergePatch, update);
      assert.equal(answer.status, 422);
      assert.deepEqual(valueAt((await client.get(path)).body, 'spec'), valueAt(made.body, 'spec'));
    },
  },
  {
    name: 'network policies can be made, read, watched, changed and deleted, one by one and together',
    run: operations,
  },
];

/** Upstream's "should support creating NetworkPolicy API operations". */
async function operations(client: ContractClient): Promise<void> {
  await discovery(client);
  const path = policies(client);
  const label = { 'special-label': 'yes' };
  const selected = `${path}?labelSelector=special-label%3Dyes`;
  const count = async (where: string): Promise<number> => objectsAt((await client.get(where)).body, 'items').length;
  for (const name of ['one', 'two', 'three']) {
    const peer = { podSelector: { matchLabels: { a: 'b' } }, namespaceSelector: { matchLabels: { c: 'd' } } };
    assert.equal((await client.post(path, policy(name, ingressPeer(peer), label))).status, 201);
  }
  const listed = await client.get(selected);
  assert.equal(objectsAt(listed.body, 'items').length, 3);
  assert.equal(
    await count(
      `/apis/${groupVersion}/networkpolicies?labelSelector=special-label%3Dyes&fieldSelector=metadata.name%3Done`,
    ),
    1,
  );
  const since = stringAt(listed.body, 'metadata', 'resourceVersion') ?? '';
  const patched = await client.patch(`${path}/three`, mergePatch, { metadata: { annotations: { patched: 'true' } } });
  await update(client, patched);
  const events = await client.watch(`${selected}&resourceVersion=${since}`, 2);
  assert.deepEqual(
    events.map((event) => [event.type, valueAt(event, 'object', 'metadata', 'annotations')]),
    [
      ['MODIFIED', { patched: 'true' }],
      ['MODIFIED', { patched: 'true', updated: 'true' }],
    ],
  );
  assert.equal((await client.delete(`${path}/three`)).status, 200);
  assert.equal((await client.get(`${path}/three`)).status, 404);
  assert.equal(await count(selected), 2);
  assert.equal((await client.delete(selected)).status, 200);
  assert.equal(await count(selected), 0);
}

async function update(client: ContractClient, { body }: Answer): Promise<void> {
  const metadata = { ...(body.metadata as JsonObject), annotations: { patched: 'true', updated: 'true' } };
  const answer = await client.put(`${policies(client)}/three`, { ...body, metadata });
  assert.equal(stringAt(answer.body, 'metadata', 'annotations', 'updated'), 'true');
}

async function discovery(client: ContractClient): Promise<void> {
  const groups = objectsAt((await client.get('/apis')).body, 'groups');
  const group = groups.find((one) => one.name === 'networking.k8s.io');
  assert.ok(group !== undefined && objectsAt(group, 'versions').some(({ version }) => version === 'v1'));
  const own = (await client.get('/apis/networking.k8s.io')).body;
  assert.ok(objectsAt(own, 'versions').some(({ version }) => version === 'v1'));
  const resources = objectsAt((await client.get(`/apis/${groupVersion}`)).body, 'resources');
  assert.ok(resources.some(({ name }) => name === 'networkpolicies'));
}
