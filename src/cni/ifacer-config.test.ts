import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseIfacerConfig } from './ifacer-config.ts';

const parse = (keys: Record<string, unknown>): ReturnType<typeof parseIfacerConfig> =>
  parseIfacerConfig({ cniVersion: '1.0.0', name: 'n', type: 'ifacer', ...keys });

describe('the ifacer configuration', () => {
  it('reads bond options: numbers, names, lists; 0 is not set', () => {
    const options = 'miimon=100;up_delay=20;lacp_rate=0; primary=ens1;arp_ip_target=[10.0.0.1,10.0.0.2];odd=1';
    const { bond } = parse({ interfaces: ['ens1', 'ens2'], bond: { name: 'b', mode: 4, options } });
    assert.deepEqual(bond?.options.numbers, { miimon: 100, updelay: 20 });
    assert.deepEqual([bond.options.mode, bond.byName, bond.unknown], [4, { primary: 'ens1' }, ['odd']]);
    assert.equal(bond.options.arpIpTargets?.length, 2);
    assert.equal(parse({ interfaces: ['a', 'b'], bond: { mode: 1 } }).bond?.name, 'sp_bond0');
  });

  for (const [keys, message] of [
    [{}, /invalid config: interfaces have at least one interface/],
    [{ interfaces: [] }, /interfaces have at least one interface/],
    [{ interfaces: ['a'], vlanID: 4095 }, /invalid vlan tag 4095: vlan tag must be in range \[0,4094\]/],
    [{ interfaces: ['a'], vlanID: -1 }, /invalid vlan tag -1/],
    [{ interfaces: ['a/b'] }, /interfaces\.0: is not an interface name/],
    [{ interfaces: ['a', 'b'] }, /several interfaces need a bond/],
    [{ interfaces: ['a', 'b'], bond: { mode: 7 } }, /bond\.mode/],
    [{ interfaces: ['a', 'b'], bond: { mode: 1, options: 'miimon=fast' } }, /miimon: "fast" is not a number/],
    [{ interfaces: ['a', 'b'], bond: { mode: 4, options: 'ad_actor_system=1' } }, /ad_actor_system: "1" is not a MAC/],
  ] as const) {
    it(`refuses ${JSON.stringify(keys)}`, () => assert.throws(() => parse(keys), message));
  }
});
