/** rtnetlink against the real kernel, compared with what iproute2 shows. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { ipToPrefix, parseIp, parsePrefix, type IpAddress, type IpPrefix } from '../../core/ip.ts';
import { isErrno, Errno } from '../errno.ts';
import { createNamedNetns, Netns, removeNamedNetns } from '../netns.ts';
import { tcHandle, tcMakeHandle } from './qdisc.ts';
import { RtNetlink } from './rtnetlink.ts';

function ip(text: string): IpAddress {
  const parsed = parseIp(text);
  assert.ok(parsed, text);
  return parsed;
}

function prefix(text: string): IpPrefix {
  const parsed = parsePrefix(text);
  assert.ok(parsed, text);
  return parsed;
}

describe('rtnetlink', () => {
  let path = '';
  let other = '';
  let rt: RtNetlink;

  beforeEach(() => {
    const id = randomBytes(4).toString('hex');
    path = `/run/netns/sluice-nl-${id}a`;
    other = `/run/netns/sluice-nl-${id}b`;
    createNamedNetns(path);
    createNamedNetns(other);
    rt = RtNetlink.open(path);
  });

  afterEach(() => {
    rt.close();
    removeNamedNetns(path);
    removeNamedNetns(other);
  });

  function json(command: string): Record<string, unknown>[] {
    const text = execFileSync('nsenter', [`--net=${path}`, ...command.split(' ')], { encoding: 'utf8' });
    return JSON.parse(text === '' ? '[]' : text) as Record<string, unknown>[];
  }

  function addVeth(): number {
    using netns = Netns.openPath(other);
    rt.addLink({
      kind: 'veth',
      name: 'v0',
      mtu: 1400,
      mac: '02:00:00:00:00:01',
      peer: { name: 'eth0', netnsFd: netns.fd },
    });
    return rt.mustLink('v0').ifindex;
  }

  it('makes a veth pair across two namespaces, and iproute2 sees the same link', () => {
    const ifindex = addVeth();
    rt.setLink(ifindex, { up: true });
    const [shown] = json('ip -j -d link show v0');
    assert.equal(shown?.['ifindex'], ifindex);
    assert.equal(shown?.['mtu'], 1400);
    assert.equal(shown?.['address'], '02:00:00:00:00:01');
    const link = rt.mustLink('v0');
    assert.equal(link.kind, 'veth');
    assert.equal(link.up, true);
    using peer = RtNetlink.open(other);
    assert.equal(peer.mustLink('eth0').parentIfindex, ifindex);
    assert.equal(rt.linkByName('absent'), undefined);
    assert.equal(rt.deleteLink(ifindex), true);
    assert.equal(rt.deleteLink(ifindex), false);
    assert.equal(peer.linkByName('eth0'), undefined);
  });

  it('says in the kernel’s words why a request failed', () => {
    addVeth();
    assert.throws(
      () => addVeth(),
      (error: unknown) => isErrno(error, Errno.EEXIST) && /add veth link v0/.test(String(error)),
    );
    const ifindex = rt.mustLink('v0').ifindex;
    assert.throws(
      () => rt.addRoute({ family: 4, dst: prefix('10.1.0.0/16'), gateway: ip('192.0.2.1'), ifindex }),
      (error: unknown) => error instanceof Error && /add route 10\.1\.0\.0\/16 via 192\.0\.2\.1/.test(error.message),
    );
  });

  it('puts addresses, routes, rules and neighbours where iproute2 shows them', () => {
    const ifindex = addVeth();
    rt.setLink(ifindex, { up: true });
    rt.setAddress({ ifindex, address: ip('10.9.0.1'), prefixLen: 24 });
    rt.setAddress({ ifindex, address: ip('fd00:9::1'), prefixLen: 64, noDad: true });
    const shown = rt.addresses(ifindex).map((a) => a.prefixLen);
    assert.ok(shown.includes(24) && shown.includes(64));

    rt.addRoute({
      family: 4,
      dst: prefix('10.77.0.0/16'),
      gateway: ip('10.9.0.2'),
      ifindex,
      table: 500,
      source: ip('10.9.0.1'),
    });
    rt.addRoute({ family: 6, dst: ipToPrefix(ip('fd00:77::1')), ifindex, scope: 'link' });
    const [route] = json('ip -j route show table 500');
    assert.deepEqual(
      [route?.['dst'], route?.['gateway'], route?.['prefsrc']],
      ['10.77.0.0/16', '10.9.0.2', '10.9.0.1'],
    );
    assert.ok(rt.routes().some((r) => r.table === 500 && r.gateway?.value === ip('10.9.0.2').value));
    assert.equal(rt.routeTo(ip('10.9.0.7'))?.ifindex, ifindex);
    assert.equal(rt.routeTo(ip('198.51.100.1')), undefined);

    rt.ensureRule({ family: 4, priority: 1000, table: 500, fwmark: 1 });
    rt.ensureRule({ family: 4, priority: 1000, table: 500, fwmark: 1 });
    assert.equal(
      json('ip -j rule show').filter((rule) => rule['priority'] === 1000 && rule['table'] === '500').length,
      1,
    );
    assert.equal(rt.deleteRule({ family: 4, priority: 1000, table: 500, fwmark: 1 }), true);
    assert.equal(rt.deleteRule({ family: 4, priority: 1000, table: 500, fwmark: 1 }), false);

    rt.setNeighbour({ ifindex, address: ip('10.9.0.9'), mac: '02:00:00:00:00:09' });
    const neighbour = json('ip -j neigh show').find((n) => n['dst'] === '10.9.0.9');
    assert.deepEqual([neighbour?.['lladdr'], neighbour?.['state']], ['02:00:00:00:00:09', ['PERMANENT']]);
    assert.equal(rt.deleteNeighbour({ ifindex, address: ip('10.9.0.9') }), true);
  });

  it('configures tbf and htb as tc shows them', () => {
    const ifindex = addVeth();
    rt.replaceQdisc({
      ifindex,
      parent: tcHandle.root,
      handle: tcMakeHandle(1, 0),
      options: { kind: 'tbf', rateBytes: 12_500_000, burstBytes: 65_536, limitBytes: 400_000 },
    });
    const [tbf] = json('tc -j qdisc show dev v0');
    const options = tbf?.['options'] as Record<string, unknown>;
    assert.equal(tbf?.['kind'], 'tbf');
    assert.equal(options['rate'], 12_500_000);
    assert.ok(Math.abs(Number(options['burst']) - 65_536) < 200, `burst ${String(options['burst'])}`);
    assert.deepEqual(rt.qdiscs(ifindex)[0]?.tbf?.rateBytes, 12_500_000);

    assert.equal(rt.deleteQdisc(ifindex, tcHandle.root), true);
    rt.addQdisc({
      ifindex,
      parent: tcHandle.root,
      handle: tcMakeHandle(1, 0),
      options: { kind: 'htb', defaultClass: 1 },
    });
    rt.setHtbClass({
      ifindex,
      parent: tcMakeHandle(1, 0),
      handle: tcMakeHandle(1, 1),
      rateBytes: 1_250_000,
      ceilBytes: 1_250_000,
      burstBytes: 15_000,
      ceilBurstBytes: 15_000,
      quantumBytes: 1514,
    });
    assert.deepEqual(
      rt.htbClasses(ifindex).map((c) => c.rateBytes),
      [1_250_000],
    );
  });

  it('redirects every packet that comes in to an ifb', () => {
    const ifindex = addVeth();
    rt.addLink({ kind: 'ifb', name: 'ifb-test', up: true });
    const ifb = rt.mustLink('ifb-test').ifindex;
    rt.addQdisc({ ifindex, parent: tcHandle.ingress, handle: tcHandle.clsact, options: { kind: 'clsact' } });
    rt.addFilter({
      ifindex,
      parent: tcHandle.clsactIngress,
      priority: 10,
      handle: 0,
      options: { kind: 'u32', redirectToIfindex: ifb },
    });
    assert.ok(
      rt.filters(ifindex, tcHandle.clsactIngress).some((filter) => filter.kind === 'u32' && filter.priority === 10),
    );
    const text = execFileSync('nsenter', [`--net=${path}`, 'tc', 'filter', 'show', 'dev', 'v0', 'ingress'], {
      encoding: 'utf8',
    });
    assert.match(text, /mirred \(Egress Redirect to device ifb-test\)/);
    assert.equal(rt.deleteFilters(ifindex, tcHandle.clsactIngress, 10), true);
    assert.equal(rt.filters(ifindex, tcHandle.clsactIngress).length, 0);
  });
});
