/** What pods are asked about on the link before they have an address; only node1 asks, as its agent is configured so. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import type { Event } from '../../src/api/kubernetes.ts';
import { events } from '../../src/api/resources.ts';
import { labLayout } from '../../src/lab/layout.ts';
import { mustLabState } from '../../src/lab/lifecycle/state.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { caseOf, fromPools, ipsOf, onNode, onSwitch, type Bed, type CaseSpace } from './bed.ts';
import { escaped } from './joined.ts';
import { killAll } from './processes.ts';

const detecting = 'enableIPConflictDetection: true\nenableGatewayDetection: true\n';

export function detectionCases(bed: () => Bed): void {
  describe('asking the link', { concurrency: true }, () => {
    before(() => configureNode1(bed(), detecting));
    after(() => configureNode1(bed(), ''));
    conflictCases(bed);
    gatewayCases(bed);
  });
}

/** As on a cluster: the ConfigMap is changed, the agent started again. */
async function configureNode1(bed: Bed, conf: string): Promise<void> {
  writeFileSync(labLayout(mustLabState(bed.dir)).confFile, conf);
  await killAll(bed, /^agent-node1$/);
  const isReady = (): Promise<boolean> =>
    onNode(bed, 'node1', 'curl', '-sf', 'http://127.0.0.1:9879/readyz').then(
      () => true,
      () => false,
    );
  await waitFor('the agent of node1', isReady, { timeoutMs: 120_000 });
}

function conflictCases(bed: () => Bed): void {
  caseOf(
    'C00007',
    'somebody has addresses of both families: pods get others; of a pool of no other they get none, and say who has it',
    bed,
    async (c) => {
      const [net, net6, single] = [c.subnet(), c.subnet6(), c.subnet()];
      const v4 = await c.poolOf('v4', { subnet: `${net}.0/24`, ips: [`${net}.10-${net}.12`] });
      const v6 = await c.poolOf('v6', { subnet: `${net6}::/64`, ips: [`${net6}::10-${net6}::12`] });
      const only = await c.poolOf('only', { subnet: `${single}.0/24`, ips: [`${single}.10`] });
      const owner = `is located at ${await switchMac(c)}`;
      await withOnSwitch(c, [`${net}.10/24`, `${net6}::10/64`, `${single}.10/24`], async () => {
        const noOther = new RegExp(`all IP addresses used out.*${escaped(single)}\\.10 ${owner}`);
        await Promise.all([
          takesOthers(c, [v4, v6], [`${net}.1`, `${net6}::1`], owner),
          c.refused('none', noOther, { annotations: fromPools([only]), node: 'node1' }),
        ]);
        assert.equal((await c.records(only)).size, 0);
      });
    },
  );
}

/** Of two pools with the addresses `prefixes` + 0 to 2; those with 0 are the owner's. */
async function takesOthers(
  c: CaseSpace,
  [v4, v6]: readonly [string, string],
  prefixes: readonly string[],
  owner: string,
): Promise<void> {
  const options = { annotations: fromPools([v4], [v6]), node: 'node1' };
  const [taken, second, third] = [0, 1, 2].map((n) => prefixes.map((prefix) => `${prefix}${n}`)) as [
    string[],
    string[],
    string[],
  ];
  const pod = await c.pod('web', options);
  assert.deepEqual(ipsOf(pod), second);
  assert.deepEqual(await c.addressesOn('web'), second);
  const records = [...(await c.records(v4)), ...(await c.records(v6))];
  assert.deepEqual(
    records,
    second.map((ip) => [ip, `${c.namespace}/web`]),
  );
  const said = taken.map((ip) => `ip conflict: pod's interface eth0 with an conflicting ip ${ip}, ${ip} ${owner}`);
  await waitFor('both events', async () => (await conflictEvents(c, 'web')).length === 2, { timeoutMs: 60_000 });
  assert.deepEqual((await conflictEvents(c, 'web')).sort(), said);
  const log = readFileSync(join(c.bed.dir, 'logs', 'agent-node1.log'), 'utf8');
  for (const message of said) assert.ok(log.includes(message), message);

  assert.deepEqual(ipsOf(await c.pod('next', options)), third);
  assert.deepEqual(await conflictEvents(c, 'next'), [], 'set aside: not asked about again');
  for (const ip of second) await onSwitch(c.bed, 'ping', '-c', '1', '-W', '20', ip);
}

function gatewayCases(bed: () => Bed): void {
  caseOf('C00009', 'a pod starts when its gateway answers, and says until then which is silent', bed, async (c) => {
    const [net, net6] = [c.subnet(), c.subnet6()];
    const [gateway, gateway6] = [`${net}.1`, `${net6}::1`];
    const v4 = await c.poolOf('v4', { subnet: `${net}.0/24`, ips: [`${net}.10`], gateway });
    const v6 = await c.poolOf('v6', { subnet: `${net6}::/64`, ips: [`${net6}::10`], gateway: gateway6 });
    const silent = (ip: string, from: string, pool: string): RegExp =>
      new RegExp(`eth0.*gateway ${escaped(ip)} is unreachable from ${escaped(from)}.*${pool}`);
    await Promise.all([
      c.refused('four', silent(gateway, `${net}.10`, v4), { annotations: fromPools([v4]), node: 'node1' }),
      c.refused('six', silent(gateway6, `${net6}::10`, v6), { annotations: fromPools([], [v6]), node: 'node1' }),
    ]);
    await withOnSwitch(c, [`${gateway}/24`, `${gateway6}/64`], async () => {
      const [four, six] = await Promise.all([c.ready('four'), c.ready('six')]);
      assert.deepEqual([ipsOf(four), ipsOf(six)], [[`${net}.10`], [`${net6}::10`]]);
      await c.output('four', 'ping', '-c', '1', '-W', '20', gateway);
      await c.output('six', 'ping', '-c', '1', '-W', '20', gateway6);
    });
  });
}

/** While `run` runs, the switch has these addresses too: somebody on the wire, and no pod. */
async function withOnSwitch(c: CaseSpace, addresses: readonly string[], run: () => Promise<void>): Promise<void> {
  const change = async (verb: 'add' | 'del', address: string): Promise<unknown> =>
    onSwitch(c.bed, 'ip', 'address', verb, address, 'dev', 'br0', ...(verb === 'add' ? ['nodad'] : []));
  for (const address of addresses) await change('add', address);
  try {
    await run();
  } finally {
    for (const address of addresses) await change('del', address);
  }
}

async function switchMac({ bed }: CaseSpace): Promise<string> {
  const text = await onSwitch(bed, 'ip', '-o', 'link', 'show', 'dev', 'br0');
  return / link\/ether (\S+)/.exec(text)?.[1] ?? assert.fail(text);
}

async function conflictEvents({ kube, namespace }: CaseSpace, pod: string): Promise<string[]> {
  const { items } = await kube.list<Event>(events, { namespace });
  const own = items.filter(({ involvedObject, reason }) => involvedObject?.name === pod && reason === 'IPConflict');
  return own.map(({ message }) => message ?? '');
}
