/** Group M: what a SpiderMultusConfig must not say. Refused by the API server or the webhook, naming the field. */
import assert from 'node:assert/strict';
import type { KubeObject } from '../../src/api/kubernetes.ts';
import { networkAttachmentDefinitions, spiderMultusConfigs } from '../../src/api/resources.ts';
import { spiderAnnotations } from '../../src/api/spider.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { caseOf, type Bed, type CaseSpace } from './bed.ts';

const { crName, cniVersion, networkInject, rdmaInject } = spiderAnnotations;
const master = ['ens192'];
const macvlan = (more: object = {}, spec: object = {}): object => ({
  cniType: 'macvlan',
  macvlan: { master, ...more },
  ...spec,
});
const pools = { ippools: { ipv4: ['a'] } };

type Row = readonly [spec: object, annotations: Readonly<Record<string, string>>, message: RegExp | undefined];

/** Without a message: admitted. */
const cases: readonly (readonly [id: string, what: string, ...rows: Row[]])[] = [
  ['M00005', 'custom that is no JSON', [{ cniType: 'custom', customCNI: '{' }, {}, /customCNI must be valid JSON/]],
  [
    'M00013',
    'a CNI version nobody speaks',
    [macvlan(), { [cniVersion]: 'x.y.z' }, /unsupported CNI version x\.y\.z/],
    [macvlan(), { [cniVersion]: '0.4.0' }, undefined],
  ],
  [
    'M00015',
    'a block of another type',
    [{ cniType: 'ipvlan', macvlan: { master } }, {}, /no spec\.ipvlanConfig specified/],
    [macvlan({}, { ipvlan: { master } }), {}, /please remove other CNI configs/],
  ],
  [
    'M00016',
    'a VLAN out of range',
    [macvlan({ vlanID: 4095 }), {}, /spec\.macvlan\.vlanID.*4095/],
    [macvlan({ vlanID: -1 }), {}, /spec\.macvlan\.vlanID.*-1/],
  ],
  [
    'M00020',
    'a name that is too long or empty',
    [macvlan(), { [crName]: 'a'.repeat(254) }, /cr-name.*DNS-1123/],
    [macvlan(), { [crName]: '' }, /cr-name.*DNS-1123/],
  ],
  ['M00023', 'an rp_filter of 3', [macvlan({}, { coordinator: { podRPFilter: 3 } }), {}, /podRPFilter.*3/]],
  ['M00025', 'a name that RFC 1123 does not allow', [macvlan(), { [crName]: 'Net_1' }, /cr-name.*DNS-1123/]],
  [
    'M00027',
    'RDMA injection without a resource',
    [macvlan(pools), { [rdmaInject]: 'x' }, /needs a resource name: set spec\.macvlan\.rdmaResourceName/],
  ],
  [
    'M00028',
    'RDMA injection without a pool',
    [macvlan({ rdmaResourceName: 'r' }), { [rdmaInject]: 'x' }, /needs at least one pool/],
  ],
  [
    'M00029',
    'injection for types that have no resource',
    [{ cniType: 'custom' }, { [rdmaInject]: 'x' }, /not supported for cniType custom/],
    [{ cniType: 'ovs', ovs: { bridge: 'b' } }, { [networkInject]: 'x' }, /not supported for cniType ovs/],
  ],
  [
    'M00030',
    'nothing of RDMA injection that is whole',
    [macvlan({ rdmaResourceName: 'r', ...pools }), { [rdmaInject]: 'x' }, undefined],
  ],
  [
    'M00031',
    'network injection of a resource without a pool',
    [{ cniType: 'sriov', sriov: { resourceName: 'r' } }, { [networkInject]: 'x' }, /needs at least one pool/],
  ],
  ['M00032', 'nothing of network injection without a resource', [macvlan(), { [networkInject]: 'x' }, undefined]],
  [
    'M00040',
    'a VLAN id with mode auto',
    [{ cniType: 'vlan', vlan: { master, vlanMode: 'auto', vlanID: 5 } }, {}, /spec\.vlan\.vlanID: Forbidden/],
  ],
];

function create(c: CaseSpace, name: string, spec: object, annotations: Row[1] = {}): Promise<KubeObject> {
  return c.kube.create(spiderMultusConfigs, {
    metadata: { namespace: c.namespace, name, annotations },
    spec,
  } as KubeObject);
}

export function refusedMultusCases(bed: () => Bed): void {
  for (const [id, what, ...rows] of cases)
    caseOf(id, `refused: ${what}`, bed, async (c) => {
      for (const [n, [spec, annotations, message]] of rows.entries()) {
        const made = create(c, `c${n}`, spec, annotations);
        if (message === undefined) await made;
        else await assert.rejects(made, message);
      }
      for (const [n, [, , message]] of rows.entries()) {
        if (message === undefined) continue;
        const at = { namespace: c.namespace, name: `c${n}` };
        assert.equal(await c.kube.find(networkAttachmentDefinitions, at), undefined);
      }
    });

  caseOf('M00011', 'refused: another’s attachment by cr-name, and a cr-name that changes', bed, async (c) => {
    await create(c, 'first', macvlan(), { [crName]: 'taken' });
    const at = { namespace: c.namespace, name: 'taken' };
    await waitFor('the attachment', async () => (await c.kube.find(networkAttachmentDefinitions, at)) !== undefined);
    await assert.rejects(
      create(c, 'second', macvlan(), { [crName]: 'taken' }),
      /taken already exists and is managed by/,
    );
    const body = { metadata: { annotations: { [crName]: 'other' } } };
    const change = c.kube.patch(
      spiderMultusConfigs,
      { namespace: c.namespace, name: 'first' },
      { type: 'merge', body },
    );
    await assert.rejects(change, /cr-name.*is not changeable, it is taken/);
  });
}
