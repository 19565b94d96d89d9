/** Group S: addresses that are never handed out. */
import assert from 'node:assert/strict';
import { spiderIPPools, spiderReservedIPs } from '../../src/api/resources.ts';
import { caseOf, fromPools, ipsOf, type Bed } from './bed.ts';

export function reservedCases(bed: () => Bed): void {
  caseOf('S00001', 'an address of a SpiderReservedIP is not assigned, until it is reserved no more', bed, async (c) => {
    const net = c.subnet();
    const pool = await c.poolOf('p', { subnet: `${net}.0/24`, ips: [`${net}.10-${net}.11`] });
    const reservation = { metadata: { name: 's00001' }, spec: { ips: [`${net}.10`] } };
    await c.kube.create(spiderReservedIPs, reservation);
    c.willRemove(spiderReservedIPs, 's00001');
    const annotations = fromPools([pool]);
    assert.deepEqual(ipsOf(await c.pod('first', { annotations })), [`${net}.11`]);
    await c.refused('second', /all IP addresses used out/, { annotations });
    await c.kube.delete(spiderReservedIPs, { name: 's00001' });
    assert.deepEqual(ipsOf(await c.ready('second')), [`${net}.10`]);
  });

  caseOf('S00002', 'an address of excludeIPs is not assigned', bed, async (c) => {
    const net = c.subnet();
    const spec = { subnet: `${net}.0/24`, ips: [`${net}.10-${net}.12`], excludeIPs: [`${net}.10`, `${net}.12`] };
    const pool = await c.poolOf('p', spec);
    const annotations = fromPools([pool]);
    assert.deepEqual(ipsOf(await c.pod('first', { annotations })), [`${net}.11`]);
    await c.refused('second', /all IP addresses used out/, { annotations });
  });

  caseOf('S00003', 'an address in use cannot be excluded', bed, async (c) => {
    const pool = await c.pool('p');
    const [ip = ''] = ipsOf(await c.pod('web', { annotations: fromPools([pool]) }));
    const body = { spec: { excludeIPs: [ip] } };
    const patch = (): Promise<unknown> => c.kube.patch(spiderIPPools, { name: pool }, { type: 'merge', body });
    await assert.rejects(
      patch(),
      new RegExp(`remove an IP address ${ip} that is being used by Pod ${c.namespace}/web`),
    );
    await c.remove('web');
    await c.recordsBecome(pool, 0);
    await patch();
  });

  caseOf('S00004', 'excludeIPs of a pool made by hand: checked, merged, subtracted', bed, async (c) => {
    const net = c.subnet();
    const base = { subnet: `${net}.0/24`, ips: [`${net}.10-${net}.19`] };
    await assert.rejects(c.poolOf('bad', { ...base, excludeIPs: ['192.0.2.1'] }), /not match base subnet/);
    await assert.rejects(c.poolOf('bad', { ...base, excludeIPs: ['nothing'] }), /invalid IP range format/);
    const pool = await c.poolOf('p', { ...base, excludeIPs: [`${net}.12`, `${net}.10`, `${net}.11`] });
    assert.deepEqual((await c.readPool(pool)).spec.excludeIPs, [`${net}.10-${net}.12`]);
    assert.deepEqual(ipsOf(await c.pod('web', { annotations: fromPools([pool]) })), [`${net}.13`]);
  });
}
