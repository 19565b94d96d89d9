/**
 * From API objects to verdicts, through every layer: random policies are compiled, written to the kernel's maps and
 * judged by the committed eBPF programs (BPF_PROG_TEST_RUN), and the verdict of each first packet is compared with
 * the naive oracle's. What src/policy/simulate.ts claims about the programs is so checked against the programs.
 */

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import type { Pod } from '../src/api/kubernetes.ts';
import { bitsOf, formatIp, parsePrefix, type IpAddress, type IpPrefix } from '../src/core/ip.ts';
import { check } from '../src/core/property.ts';
import { endpointIdKey, endpointStruct, reservedIdentity } from '../src/datapath/abi.ts';
import { Datapath, type PolicyEntry as DatapathEntry } from '../src/datapath/datapath.ts';
import { DatapathMaps } from '../src/datapath/maps.ts';
import { icmpHeader, ip, tcpFlag, tcpHeader, udpHeader } from '../src/datapath/packets.ts';
import { loadEndpointPrograms, programNames, readEndpointObject } from '../src/datapath/programs.ts';
import { TestBpffs, whyNoKernelTests } from '../src/datapath/test-bed.ts';
import type { Collection } from '../src/kernel/index.ts';
import { compileEndpointPolicy, endpointOfPod, type PolicyEntry } from '../src/policy/compile.ts';
import { anyIdentity, hostIdentity, IdentityAllocator, worldIdentity } from '../src/policy/identity.ts';
import { computeIpcache } from '../src/policy/ipcache.ts';
import { evaluate, type World } from '../src/policy/oracle.ts';
import { PolicyIndex } from '../src/policy/policy-index.ts';
import { protocolNumber } from '../src/policy/port.ts';
import { RuleIds } from '../src/policy/rule-id.ts';
import { IdentityView } from '../src/policy/select.ts';
import { flowsOf, world as anyWorld, type FlowShape } from '../src/policy/world.ts';

const endpointId = 7;
const passed = -1; // TCX_NEXT
const dropped = 2; // TCX_DROP

it('policy and datapath mean the same by an entry and by reserved identities', () => {
  const entry: PolicyEntry = {
    direction: 'egress',
    identity: anyIdentity,
    protocol: 6,
    port: 80,
    portPrefixLen: 16,
    ruleId: 1,
    action: 'allow',
  };
  // The compiler checks both directions: the types are structurally the same.
  const written: DatapathEntry = entry;
  const keys: readonly (keyof PolicyEntry)[] = Object.keys(written) as (keyof DatapathEntry)[];
  assert.equal(keys.length, 7);
  assert.deepEqual({ any: anyIdentity, host: hostIdentity, world: worldIdentity }, { ...reservedIdentity });
});

const reason = whyNoKernelTests();

describe('compiled policies in the kernel, against the oracle', { skip: reason ?? false }, () => {
  let bpffs: TestBpffs;
  let maps: DatapathMaps;
  let programs: Collection;
  let datapath: Datapath;

  before(() => {
    bpffs = new TestBpffs();
    const object = readEndpointObject();
    datapath = Datapath.open({ bpffsDir: bpffs.path });
    maps = DatapathMaps.open(bpffs.path, object.spec, {});
    programs = loadEndpointPrograms(object, maps.byName, endpointId);
    maps.byName.endpoints.update(
      endpointIdKey.encode({ endpointId }),
      endpointStruct.encode({ policyId: 0, flags: 0 }),
    );
  });
  after(() => {
    programs.close();
    maps.close();
    datapath.close();
    bpffs[Symbol.dispose]();
  });

  const isProtected = (pod: Pod): boolean => pod.spec?.hostNetwork !== true && pod.status?.phase === 'Running';

  it('agree on every flow', () => {
    const judged = { allow: 0, deny: 0 };
    const scenes = anyWorld
      .filter(({ pods, policies }) => pods.some(isProtected) && policies.length > 0)
      .chain((world) => fc.tuple(fc.constant(world), fc.array(flowsOf(world), { minLength: 15, maxLength: 30 })));
    check(
      fc.property(scenes, ([world, flows]) => {
        const policies = new PolicyIndex(world.policies);
        const view = programAddresses(world, policies);
        for (const pod of world.pods.filter(isProtected)) {
          datapath.setPolicy(endpointId, compileEndpointPolicy(endpointOfPod(pod), policies, view, new RuleIds()));
          for (const flow of flows) {
            const own = ownAddress(pod, flow.peer);
            if (own === formatIp(flow.peer)) continue; // a pod's packets to itself never reach the interface
            // Each packet is the first of its connection.
            maps.byName.conntrack.deleteBatch([...maps.byName.conntrack.keys()]);
            const expected = evaluate(world, { ...flow, pod }).verdict;
            const { returnValue } = programs.program(programNames[flow.direction]).testRun(frameOf(flow, own));
            const text = `${flow.direction} ${own} ${formatIp(flow.peer)} ${flow.protocol} ${flow.port}`;
            assert.equal(returnValue, expected === 'allow' ? passed : dropped, `${text}: should be ${expected}`);
            judged[expected]++;
          }
        }
      }),
      { runs: 100 },
    );
    assert.ok(judged.allow > 300 && judged.deny > 300, JSON.stringify(judged));
  });

  /** Makes the kernel's ipcache that of the world, as the agent does. */
  function programAddresses(world: World, policies: PolicyIndex): IdentityView {
    const allocator = new IdentityAllocator({ nowMs: () => 0 });
    const wanted = computeIpcache({ ...world, prefixes: policies.prefixes() });
    const upsert = [...wanted].map(
      ([text, descriptor]) =>
        [parsePrefix(text) as IpPrefix, allocator.acquire(descriptor) as number] as [IpPrefix, number],
    );
    datapath.updateIpcache({ upsert: [], remove: datapath.ipcache().map(([prefix]) => prefix) });
    datapath.updateIpcache({ upsert, remove: [] });
    return new IdentityView(allocator.entries());
  }
});

/** The pod's address of the peer's family. */
function ownAddress(pod: Pod, peer: IpAddress): string {
  const own = (pod.status?.podIPs ?? []).find(({ ip: text }) => text.includes(':') === (bitsOf(peer.family) === 128));
  return own?.ip ?? '';
}

/** The first packet of the flow, as the pod's interface sees it. */
function frameOf(flow: FlowShape, own: string): Uint8Array {
  const peer = formatIp(flow.peer);
  const [from, to] = flow.direction === 'egress' ? [own, peer] : [peer, own];
  switch (flow.protocol) {
    case 'TCP':
      return ip(from, to, 6, tcpHeader(40_001, flow.port, tcpFlag.syn));
    case 'ICMP':
      return flow.peer.family === 4 ? ip(from, to, 1, icmpHeader(8, 0, 9)) : ip(from, to, 58, icmpHeader(128, 0, 9));
    default:
      // An SCTP INIT has verification tag 0 (RFC 9260 §8.5.1).
      return ip(from, to, protocolNumber(flow.protocol) ?? 17, udpHeader(40_001, flow.port, 0));
  }
}
