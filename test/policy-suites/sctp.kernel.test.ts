/**
 * Upstream's SCTP cases by real associations: nine pods as ipvlan interfaces on one parent, each with its programs, its
 * policy and SCTP listeners. Kernels without SCTP sockets leave this to the small VM.
 */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, readFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { formatIp, parsePrefix, type IpPrefix } from '../../src/core/ip.ts';
import { Datapath } from '../../src/datapath/datapath.ts';
import { randomSuffix, TestBpffs, whyNoKernelTests, whyNoLink } from '../../src/datapath/test-bed.ts';
import {
  createNamedNetns,
  Errno,
  isErrno,
  Netns,
  removeNamedNetns,
  RtNetlink,
  withNetns,
} from '../../src/kernel/index.ts';
import { listenSctp, sctpAnswers } from '../../src/kernel/listen.ts';
import { podNames, servedPorts, type PodName } from './case.ts';
import { compileWorld } from './compiler.ts';
import { families, plannedAddressing } from './scene.ts';
import { formatDifference, TruthTable, type Probe } from './truth-table.ts';
import { upstreamE2e } from './upstream-e2e.ts';
import { allProbes, walk, type Moment } from './walk.ts';

/** An association in the guest takes milliseconds; what must come up may be slow on a busy machine. */
const deniedMs = 150;
const patienceMs = 5_000;
const addressing = plannedAddressing();

/** In the VM both must be there: a skip would hide a failure. */
function whyNoSctp(): string | undefined {
  const reason = whyNoKernelTests() ?? whyNoLink('ipvlan-l2', process.env);
  if (reason !== undefined) return reason;
  try {
    closeSync(listenSctp('/proc/self/ns/net', '127.0.0.1', 0).fd);
    return undefined;
  } catch (error) {
    if (process.env['SLUICE_VM'] === '1' || !isErrno(error, Errno.EPROTONOSUPPORT)) throw error;
    return 'this kernel has no SCTP sockets';
  }
}

describe('upstream SCTP cases by real associations', { skip: whyNoSctp() ?? false }, () => {
  const prefix = `/run/netns/sluice-test-${randomSuffix()}`;
  const node = `${prefix}-node`;
  const netnsOf = (pod: PodName): string => `${prefix}-${pod.replace('/', '-')}`;
  const endpointIdOf = (pod: PodName): number => podNames.indexOf(pod) + 1;
  const listeners: number[] = [];
  let bpffs: TestBpffs;
  let datapath: Datapath;

  before(() => {
    bpffs = new TestBpffs();
    datapath = Datapath.open({ bpffsDir: bpffs.path, limits: { conntrack: 8192 } });
    createNamedNetns(node);
    using netlink = RtNetlink.open(node);
    netlink.addLink({ kind: 'veth', name: 'parent', peer: { name: 'other' } });
    for (const name of ['parent', 'other']) netlink.setLink(netlink.mustLink(name).ifindex, { up: true });
    for (const pod of podNames) makePod(netlink, pod);
  });

  after(() => {
    for (const fd of listeners) closeSync(fd);
    datapath.close();
    bpffs[Symbol.dispose]();
    for (const path of [...podNames.map(netnsOf), node]) removeNamedNetns(path);
  });

  function makePod(netlink: RtNetlink, pod: PodName): void {
    const path = netnsOf(pod);
    createNamedNetns(path);
    using netns = Netns.openPath(path);
    const parentIfindex = netlink.mustLink('parent').ifindex;
    netlink.addLink({ kind: 'ipvlan', name: 'new0', parentIfindex, mode: 'l2' });
    netlink.setLink(netlink.mustLink('new0').ifindex, { name: 'eth0', netnsFd: netns.fd });
    const run = (...args: string[]): unknown => execFileSync('nsenter', [`--net=${path}`, 'ip', ...args]);
    for (const name of ['lo', 'eth0']) run('link', 'set', name, 'up');
    run('addr', 'add', `${addressing(pod)[4]}/24`, 'dev', 'eth0');
    run('addr', 'add', `${addressing(pod)[6]}/64`, 'dev', 'eth0', 'nodad');
    datapath.attach({ endpointId: endpointIdOf(pod), netns: path, interfaceName: 'eth0' });
    for (const family of families) {
      for (const port of servedPorts) listeners.push(listenSctp(path, addressing(pod)[family], port).fd);
    }
  }

  for (const one of upstreamE2e.filter(({ steps }) => /SCTP/.test(JSON.stringify(steps)))) {
    it(one.name, () => {
      for (const moment of walk(one, addressing, allProbes(['SCTP']))) checkMoment(moment);
    });
  }

  function checkMoment({ scene, tables }: Moment): void {
    const compiled = compileWorld(scene.world());
    const addresses = [...compiled.ipcache].map(
      ([text, identity]) => [parsePrefix(text) as IpPrefix, identity as number] as const,
    );
    datapath.updateIpcache({ upsert: [], remove: datapath.ipcache().map(([known]) => known) });
    datapath.updateIpcache({ upsert: addresses, remove: [] });
    for (const pod of podNames) datapath.setPolicy(endpointIdOf(pod), compiled.policyOf(scene.pod(pod)));
    for (const { probe, expected } of tables) {
      const address = (pod: PodName): string => formatIp(scene.addressOf(pod, probe.family));
      const seen = TruthTable.of(podNames, (from, to) => associate(from, to, probe, expected, address));
      assert.deepEqual(seen.differences(expected), [], formatDifference(probe, expected, seen));
    }
  }

  function associate(
    from: PodName,
    to: PodName,
    { port }: Probe,
    expected: TruthTable,
    address: (pod: PodName) => string,
  ): 'reached' | 'timeout' {
    const answers = (timeoutMs: number): boolean =>
      sctpAnswers(netnsOf(from), address(from), address(to), port, timeoutMs);
    if (expected.get(from, to) !== 'reached') return answers(deniedMs) ? 'reached' : 'timeout';
    const before = discarded(netnsOf(to));
    if (answers(patienceMs)) return 'reached';
    const thrownAway = discarded(netnsOf(to)) - before;
    if (thrownAway === 0) return 'timeout';
    console.log(`# ${to} threw ${thrownAway} SCTP packets of ${from} away itself: tried once more`);
    return answers(patienceMs) ? 'reached' : 'timeout';
  }
});

/**
 * SCTP packets that the kernel of a pod has thrown away after they passed every hook. Seen on the emulated CPU, once in
 * some thousand associations: the COOKIE ECHO and its repetitions arrive, and the listener refuses the cookie that it made
 * itself. What a policy drops never gets to this counter.
 */
function discarded(netns: string): number {
  const snmp = withNetns(netns, () => readFileSync('/proc/thread-self/net/sctp/snmp', 'utf8'));
  const count = /^SctpInPktDiscards\s+(\d+)$/m.exec(snmp)?.[1];
  assert.ok(count !== undefined, `no SctpInPktDiscards in ${snmp}`);
  return Number(count);
}
