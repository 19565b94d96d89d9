/** Group M: what a SpiderMultusConfig becomes. Refused ones are in ./multus-refused.ts. */
import assert from 'node:assert/strict';
import type { KubeObject } from '../../src/api/kubernetes.ts';
import { networkAttachmentDefinitions, spiderMultusConfigs } from '../../src/api/resources.ts';
import { spiderAnnotations } from '../../src/api/spider.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { caseOf, defaultNetwork, ippools, ipsOf, networks, type Bed, type CaseSpace } from './bed.ts';

export interface AttachmentConfig {
  readonly cniVersion?: string;
  readonly name?: string;
  readonly plugins?: readonly Readonly<Record<string, unknown>>[];
}

const coordinator = { txQueueLen: 0, tunePodRoutes: true, mode: 'auto', type: 'coordinator' };
const ipam = { type: 'spiderpool' };

/** Of the NetworkAttachmentDefinition; undefined while there is none or it is empty. */
async function configOf(c: CaseSpace, name: string): Promise<AttachmentConfig | undefined> {
  const found = await c.kube.find(networkAttachmentDefinitions, { namespace: c.namespace, name });
  const { config = '' } = (found as { spec?: { config?: string } } | undefined)?.spec ?? {};
  return config === '' ? undefined : (JSON.parse(config) as AttachmentConfig);
}

async function configBecomes(c: CaseSpace, name: string, is: (config: AttachmentConfig) => boolean): Promise<void> {
  const seen = async (): Promise<boolean> => {
    const config = await configOf(c, name);
    return config !== undefined && is(config);
  };
  await waitFor(`attachment ${name}`, seen, { timeoutMs: 60_000 });
}

const types = ({ plugins = [] }: AttachmentConfig): string => plugins.map(({ type }) => String(type)).join(' ');

export function multusCases(bed: () => Bed): void {
  contentCases(bed);
  lifeCases(bed);
  podCases(bed);
}

function contentCases(bed: () => Bed): void {
  const macvlan = { type: 'macvlan', master: 'ens192', mode: 'bridge', ipam };
  const two = { master: ['ens192', 'ens224'], vlanID: 100, bond: { name: 'bond0', mode: 1, options: '' } };
  for (const [id, what, spec, plugins] of [
    ['M00001', 'macvlan', { cniType: 'macvlan', macvlan: { master: ['ens192'] } }, [macvlan, coordinator]],
    [
      'M00002',
      'ipvlan',
      { cniType: 'ipvlan', ipvlan: { master: ['ens192'] } },
      [{ type: 'ipvlan', master: 'ens192', ipam }, coordinator],
    ],
    [
      'M00003',
      'sriov',
      { cniType: 'sriov', sriov: { resourceName: 'spidernet.io/vf' } },
      [{ vlan: 0, min_tx_rate: 0, max_tx_rate: 0, type: 'sriov', ipam }, coordinator],
    ],
    [
      'M00006',
      'two parents, a bond and a VLAN on it',
      { cniType: 'macvlan', macvlan: two },
      [
        { vlanID: 100, type: 'ifacer', interfaces: two.master, bond: two.bond },
        { ...macvlan, master: 'bond0.100' },
        coordinator,
      ],
    ],
    [
      'M00017',
      'no IPAM where it is disabled',
      { cniType: 'macvlan', disableIPAM: true, macvlan: { master: ['ens192'] } },
      [{ type: 'macvlan', master: 'ens192', mode: 'bridge' }, coordinator],
    ],
    [
      'M00034',
      'the MTU of an ipvlan',
      { cniType: 'ipvlan', ipvlan: { master: ['ens192'], mtu: 1400 } },
      [{ type: 'ipvlan', master: 'ens192', mtu: 1400, ipam }, coordinator],
    ],
    [
      'M00035',
      'the MTU of a VF, by tuning at the end',
      { cniType: 'sriov', sriov: { resourceName: 'spidernet.io/vf', mtu: 1400 } },
      [{ vlan: 0, min_tx_rate: 0, max_tx_rate: 0, type: 'sriov', ipam }, coordinator, { type: 'tuning', mtu: 1400 }],
    ],
    [
      'M00038',
      'the id of a VLAN',
      { cniType: 'vlan', vlan: { master: ['ens192'], vlanID: 100 } },
      [{ type: 'vlan', master: 'ens192', vlanMode: 'manual', vlanId: 100, ipam }, coordinator],
    ],
    [
      'M00039',
      'no id of a VLAN with mode auto',
      { cniType: 'vlan', vlan: { master: ['ens192'], vlanMode: 'auto' } },
      [{ type: 'vlan', master: 'ens192', vlanMode: 'auto', ipam }, coordinator],
    ],
  ] as const) {
    caseOf(id, `the attachment has ${what}`, bed, async (c) => {
      await c.attachment('net', { macvlan: undefined, chainCNIJsonData: undefined, ...spec });
      assert.deepEqual(await configOf(c, 'net'), { cniVersion: '0.3.1', name: 'net', plugins });
    });
  }

  caseOf('M00019', 'an empty spec makes an attachment without configuration', bed, async (c) => {
    await c.kube.create(spiderMultusConfigs, {
      metadata: { namespace: c.namespace, name: 'bare' },
      spec: {},
    } as KubeObject);
    const at = { namespace: c.namespace, name: 'bare' };
    await waitFor('the attachment', async () => (await c.kube.find(networkAttachmentDefinitions, at)) !== undefined);
    assert.equal(await configOf(c, 'bare'), undefined);
  });

  caseOf('M00010', 'the attachment has the name that cr-name says', bed, async (c) => {
    await createConfig(c, 'config', { [spiderAnnotations.crName]: 'own-name' });
    await configBecomes(c, 'own-name', ({ name }) => name === 'own-name');
    assert.equal(await configOf(c, 'config'), undefined);
  });

  caseOf('M00012', 'the attachment has the CNI version that cni-version says', bed, async (c) => {
    await createConfig(c, 'net', { [spiderAnnotations.cniVersion]: '1.0.0' });
    await configBecomes(c, 'net', ({ cniVersion }) => cniVersion === '1.0.0');
  });
}

function createConfig(c: CaseSpace, name: string, annotations: Record<string, string> = {}): Promise<KubeObject> {
  const spec = { cniType: 'macvlan', macvlan: { master: ['ens192'] } };
  return c.kube.create(spiderMultusConfigs, {
    metadata: { namespace: c.namespace, name, annotations },
    spec,
  } as KubeObject);
}

function lifeCases(bed: () => Bed): void {
  caseOf('M00007', 'a deleted attachment is back at once', bed, async (c) => {
    await c.attachment('net');
    const at = { namespace: c.namespace, name: 'net' };
    const { metadata } = await c.kube.get(networkAttachmentDefinitions, at);
    await c.kube.delete(networkAttachmentDefinitions, at);
    const isBack = async (): Promise<boolean> => {
      const found = await c.kube.find(networkAttachmentDefinitions, at);
      return found !== undefined && found.metadata?.uid !== metadata?.uid;
    };
    // Upstream needs its informer's next turn: a minute.
    await waitFor('another attachment', isBack, { timeoutMs: 30_000 });
  });

  caseOf('M00008', 'the attachment goes with its SpiderMultusConfig', bed, async (c) => {
    await c.attachment('net');
    await c.kube.delete(spiderMultusConfigs, { namespace: c.namespace, name: 'net' });
    await c.gone(networkAttachmentDefinitions, 'net', c.namespace);
  });

  caseOf('M00009', 'an update that adds a bond reaches the attachment', bed, async (c) => {
    await createConfig(c, 'net');
    await configBecomes(c, 'net', (config) => types(config) === 'macvlan coordinator');
    const body = { spec: { macvlan: { master: ['ens192', 'ens224'], bond: { name: 'bond0', mode: 1 } } } };
    await c.kube.patch(spiderMultusConfigs, { namespace: c.namespace, name: 'net' }, { type: 'merge', body });
    await configBecomes(
      c,
      'net',
      (config) => types(config) === 'ifacer macvlan coordinator' && config.plugins?.[1]?.['master'] === 'bond0',
    );
  });

  caseOf('M00014', 'an attachment that is there already is adopted, with what others wrote on it', bed, async (c) => {
    const metadata = { namespace: c.namespace, name: 'net', labels: { team: 'blue' } };
    await c.kube.create(networkAttachmentDefinitions, { metadata, spec: { config: '{}' } } as KubeObject);
    await createConfig(c, 'net');
    await configBecomes(c, 'net', (config) => types(config) === 'macvlan coordinator');
    const adopted = await c.kube.get(networkAttachmentDefinitions, { namespace: c.namespace, name: 'net' });
    assert.equal(adopted.metadata?.labels?.['team'], 'blue');
    assert.equal(adopted.metadata?.ownerReferences?.[0]?.kind, 'SpiderMultusConfig');
  });
}

function podCases(bed: () => Bed): void {
  caseOf('M00021', 'a pod has what coordinator and chain say (with M00022, M00024, M00026, M00033)', bed, async (c) => {
    const pool = await c.pool('p');
    const tuning = { type: 'tuning', sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' } };
    const network = await c.attachment('net', {
      macvlan: { master: ['ens192'], mtu: 1400, ippools: { ipv4: [pool] } },
      coordinator: { podRPFilter: 2, podMACPrefix: '0a:1b', vethLinkAddress: '169.254.100.1' },
      chainCNIJsonData: [JSON.stringify(tuning), '{"type":"sluice"}'],
    });
    await c.pod('web', { annotations: { [defaultNetwork]: network } });
    const ofEth0 = async (name: string): Promise<string> =>
      (await c.output('web', 'cat', `/proc/sys/net/ipv4/conf/eth0/${name}`)).trim();
    assert.deepEqual([await ofEth0('arp_filter'), await ofEth0('rp_filter')], ['1', '2']);
    const link = await c.output('web', 'ip', 'link', 'show', 'eth0');
    assert.match(link, /mtu 1400 /);
    assert.match(link, /link\/ether 0a:1b:/);
    assert.match(await c.output('web', 'ip', 'addr', 'show', 'veth0'), /inet 169\.254\.100\.1\/32/);
  });

  caseOf('M00004', 'a custom configuration is passed on as it is, and a pod lives on it', bed, async (c) => {
    const pool = await c.pool('p');
    const plugins = [
      { type: 'macvlan', master: 'ens192', ipam: { type: 'spiderpool', default_ipv4_ippool: [pool] } },
      { type: 'sluice' },
    ];
    const customCNI = `{ "cniVersion": "0.3.1",  "name": "own", "plugins": ${JSON.stringify(plugins)}}`;
    const spec = { cniType: 'custom', customCNI, macvlan: undefined, chainCNIJsonData: undefined };
    const network = await c.attachment('net', spec);
    const made = await c.kube.get(networkAttachmentDefinitions, { namespace: c.namespace, name: 'net' });
    assert.equal((made as { spec?: { config?: string } }).spec?.config, customCNI);
    const pod = await c.pod('web', { annotations: { [defaultNetwork]: network } });
    assert.deepEqual(ipsOf(pod), [...(await c.records(pool)).keys()]);
  });

  caseOf('M00036', 'a JSON list of networks works compact and pretty-printed (with M00037)', bed, async (c) => {
    const [one, two] = [await c.pool('one'), await c.pool('two')];
    await c.attachment('second', { enableCoordinator: false });
    const selection = [{ name: 'second', namespace: c.namespace, interface: 'net1' }];
    const pools = JSON.stringify([
      { interface: 'eth0', ipv4: [one] },
      { interface: 'net1', ipv4: [two] },
    ]);
    const use = (text: string): object => ({ annotations: { [ippools]: pools, [networks]: text } });
    await Promise.all([
      c.pod('compact', use(JSON.stringify(selection))),
      c.pod('pretty', use(JSON.stringify(selection, undefined, 2))),
    ]);
    const onNet1 = [...(await c.addressesOn('compact', 'net1')), ...(await c.addressesOn('pretty', 'net1'))];
    assert.deepEqual(onNet1.sort(), [...(await c.records(two)).keys()].sort());
  });
}
