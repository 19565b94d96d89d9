/**
 * Pods on VLANs and on a bond, in a lab: what ifacer makes on the nodes when pods start at once, and what the wire then carries.
 * The wire's switch forwards tagged frames as they are, so pods of two VLANs share a cable and do not hear each other.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { KubeObject } from '../src/api/kubernetes.ts';
import { networkPolicies } from '../src/api/resources.ts';
import { waitFor } from '../src/lab/lifecycle/wait.ts';
import { vmCacheDir } from '../src/lab/vm/cache-dir.ts';
import { bedUp, CaseSpace, defaultNetwork, networks, type Bed } from './cases/bed.ts';

/** Under emulation, on a machine that does other things too. */
const patience = { timeoutMs: 300_000 };
const nodes = ['node1', 'node2'];
/** Two more network cards for each node. */
const slaves = ['ens224', 'ens256'];
const why = 'boots the small VM and a lab in it, which takes minutes: SLUICE_FULL=1 runs it';

describe('VLANs and a bond, in a lab', { skip: process.env['SLUICE_FULL'] === '1' ? false : why }, () => {
  let bed: Bed | undefined;
  let c: CaseSpace;
  let lab = '';

  before(async () => {
    bed = await bedUp('ipvlan', vmCacheDir(process.env));
    c = await CaseSpace.make(bed, 'trunk');
    const spec = { nodeName: 'node1', hostNetwork: true, hostPID: true };
    const containers = [{ name: 'c', image: 'none', command: ['sleep', '100000'] }];
    await c.pod('machine', { spec: { ...spec, containers } });
    await plugIn();
  });
  after(async () => {
    await c?.clear();
    await bed?.down();
  });

  /** In the machine that the lab is on: this one, or the virtual one. */
  function onMachine(script: string): Promise<string> {
    return c.output('machine', 'nsenter', '-t', '1', '-m', '-n', 'sh', '-ec', script);
  }

  /** Runs `ip` with this in a node or in the switch. */
  async function ipIn(end: string, command: string): Promise<string> {
    lab ||= (await c.output('machine', 'nsenter', '-t', '1', '-m', 'ip', 'netns', 'identify'))
      .trim()
      .replace(/node1$/, '');
    return onMachine(`ip -n ${lab}${end} ${command.replaceAll('$LAB', lab)}`);
  }

  async function plugIn(): Promise<void> {
    for (const node of nodes) {
      const there = await ipIn(node, '-o link');
      for (const slave of slaves) {
        const port = `${node.slice(4)}-${slave}`;
        if (!there.includes(` ${slave}@`))
          await ipIn(node, `link add ${slave} type veth peer name ${port} netns $LABswitch`);
        await ipIn('switch', `link set ${port} master br0 up`);
      }
    }
  }

  async function reaches(from: string, address: string): Promise<boolean> {
    return (await c.exec(from, 'ping', '-c', '1', '-W', '3', address)).exitCode === 0;
  }

  async function reach(from: string, addresses: readonly string[]): Promise<void> {
    for (const address of addresses)
      await waitFor(`${from} to reach ${address}`, () => reaches(from, address), patience);
  }

  it('makes one VLAN for pods that start at once, and keeps VLANs apart', async () => {
    const net = c.subnet();
    const pool = (name: string, from: number): Promise<string> =>
      c.poolOf(name, { subnet: `${net}.0/24`, ips: [`${net}.${from}-${net}.${from + 9}`] });
    const v6 = await c.pool6('vlan6', 6);
    const [one, two] = [await pool('vlan100', 10), await pool('vlan200', 30)];
    const vlan = (vlanID: number, ippools: object): Promise<string> =>
      c.attachment(`vlan${vlanID}`, {
        cniType: 'ipvlan',
        macvlan: undefined,
        ipvlan: { master: ['ens192'], vlanID, ippools },
      });
    const [in100, in200] = [await vlan(100, { ipv4: [one], ipv6: [v6] }), await vlan(200, { ipv4: [two] })];
    const use = (network: string, node: string) => ({ annotations: { [defaultNetwork]: network }, node });
    await Promise.all([
      ...['a', 'b'].map((name) => c.pod(name, use(in100, 'node1'))),
      c.pod('far', use(in100, 'node2')),
      c.pod('other', use(in200, 'node2')),
    ]);
    for (const [node, ids] of [
      ['node1', [100]],
      ['node2', [100, 200]],
    ] as const) {
      const made = await ipIn(node, '-d -o link show type vlan');
      const found = [...made.matchAll(/ (ens192\.\d+)@ens192.*? vlan protocol 802\.1Q id (\d+)/g)];
      const wanted = ids.map((id) => [`ens192.${id}`, String(id)]);
      assert.deepEqual(found.map(([, name, id]) => [name, id]).sort(), wanted);
    }
    const far = await c.addressesOn('far');
    assert.equal(far.length, 2);
    await reach('a', [...far, ...(await c.addressesOn('b'))]);
    await reach('b', far);
    assert.equal(await reaches('other', (await c.addressesOn('a'))[0] ?? ''), false, 'VLAN 200 does not hear VLAN 100');
    await reach('machine', await c.addressesOn('a'));
  });

  it('makes one bond, and a VLAN on it, for pods that start at once; the pods keep talking when a cable is pulled', async () => {
    const pool = await c.pool('bond');
    const bond = { name: 'bond0', mode: 1, options: 'miimon=100;primary=ens224' };
    const network = await c.attachment('bonded', {
      macvlan: { master: slaves, bond, vlanID: 30, ippools: { ipv4: [pool] } },
    });
    const use = (node: string) => ({ annotations: { [networks]: network }, node });
    await Promise.all([
      ...['c', 'd'].map((name) => c.pod(name, use('node1'))),
      ...['e', 'f'].map((name) => c.pod(name, use('node2'))),
    ]);
    for (const node of nodes) {
      assert.match(await ipIn(node, '-d -o link show bond0'), /bond mode active-backup .*miimon 100 .*primary ens224/);
      for (const slave of slaves) assert.match(await ipIn(node, `-o link show ${slave}`), /master bond0 state UP/);
      assert.match(await ipIn(node, '-d -o link show bond0.30'), /bond0\.30@bond0.* vlan protocol 802\.1Q id 30 /);
      assert.match(await ipIn(node, '-d -o link show bond0'), /active_slave ens224/);
    }
    const e = await c.addressesOn('e', 'net1');
    await reach('c', [...e, ...(await c.addressesOn('d', 'net1')), ...(await c.addressesOn('f', 'net1'))]);
    await ipIn('switch', 'link set 1-ens224 down');
    const isOver = async (): Promise<boolean> =>
      (await ipIn('node1', '-d -o link show bond0')).includes('active_slave ens256');
    await waitFor('the other cable', isOver, patience);
    await reach('c', e);
  });

  it('judges what comes by the VLAN of the bond, and leaves both when the pods go', async () => {
    const [address = ''] = await c.addressesOn('e', 'net1');
    await c.kube.create(networkPolicies, {
      metadata: { namespace: c.namespace, name: 'closed' },
      spec: { podSelector: { matchLabels: { app: 'e' } }, ingress: [] },
    } as KubeObject);
    await waitFor('the policy', async () => !(await reaches('c', address)), patience);
    assert.ok(await reaches('c', (await c.addressesOn('f', 'net1'))[0] ?? ''));
    for (const name of ['c', 'd']) await c.remove(name);
    await c.pod('again', { annotations: { [networks]: `${c.namespace}/bonded` }, node: 'node1' });
    await reach('again', await c.addressesOn('f', 'net1'));
    assert.equal((await ipIn('node1', '-o link show type bond')).trim().split('\n').length, 1);
  });
});
