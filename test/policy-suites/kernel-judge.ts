/**
 * Verdicts by the kernel: compiled entries in its maps, the committed programs, and BPF_PROG_TEST_RUN for each packet.
 * Every packet is the first of a connection of its own: each has another source port, and conntrack is emptied before
 * those are used again.
 */

import type { Pod } from '../../src/api/kubernetes.ts';
import { bitsOf, formatIp, parsePrefix, type IpAddress, type IpPrefix } from '../../src/core/ip.ts';
import { Datapath } from '../../src/datapath/datapath.ts';
import { DatapathMaps } from '../../src/datapath/maps.ts';
import { icmpHeader, ip, tcpFlag, tcpHeader, udpHeader } from '../../src/datapath/packets.ts';
import { loadEndpointPrograms, programNames, readEndpointObject } from '../../src/datapath/programs.ts';
import { TestBpffs } from '../../src/datapath/test-bed.ts';
import type { Collection } from '../../src/kernel/index.ts';
import type { EndpointPolicy } from '../../src/policy/compile.ts';
import { protocolNumber } from '../../src/policy/port.ts';
import type { CompiledWorld, JudgedFlow } from './compiler.ts';

const endpointId = 7;
const passed = -1; // TCX_NEXT
const dropped = 2; // TCX_DROP

const firstSourcePort = 20_000;
const lastSourcePort = 50_000;

export class KernelJudge implements Disposable {
  readonly #bpffs = new TestBpffs();
  readonly #datapath: Datapath;
  readonly #maps: DatapathMaps;
  readonly #programs: Collection;
  #sourcePort = firstSourcePort;

  constructor() {
    const object = readEndpointObject();
    this.#datapath = Datapath.open({ bpffsDir: this.#bpffs.path });
    this.#maps = DatapathMaps.open(this.#bpffs.path, object.spec, {});
    this.#programs = loadEndpointPrograms(object, this.#maps.byName, endpointId);
    this.#datapath.register(endpointId);
  }

  get datapath(): Datapath {
    return this.#datapath;
  }

  /** Makes the kernel's ipcache that of the world, as the agent does: only what differs is written. */
  setAddresses({ ipcache }: CompiledWorld): void {
    const wanted = [...ipcache].map(([text, identity]) => [parsePrefix(text) as IpPrefix, identity as number] as const);
    this.#datapath.updateIpcache({ upsert: [], remove: this.#datapath.ipcache().map(([prefix]) => prefix) });
    this.#datapath.updateIpcache({ upsert: wanted, remove: [] });
  }

  /** Makes the one endpoint the pod of this policy. */
  setPolicy(policy: EndpointPolicy): void {
    this.#datapath.setPolicy(endpointId, policy);
  }

  /** The verdict on the first packet of the flow, seen on the interface of the pod with address `own`. */
  verdict(flow: JudgedFlow, own: IpAddress): 'allow' | 'deny' {
    return this.verdictOfFrame(flow.direction, frameOf(flow, formatIp(own), this.#nextSourcePort()));
  }

  verdictOfFrame(direction: 'ingress' | 'egress', frame: Uint8Array): 'allow' | 'deny' {
    const { returnValue } = this.#programs.program(programNames[direction]).testRun(frame);
    if (returnValue !== passed && returnValue !== dropped) throw new RangeError(`the program answered ${returnValue}`);
    return returnValue === passed ? 'allow' : 'deny';
  }

  [Symbol.dispose](): void {
    this.#programs.close();
    this.#maps.close();
    this.#datapath.close();
    this.#bpffs[Symbol.dispose]();
  }

  #nextSourcePort(): number {
    if (this.#sourcePort === lastSourcePort) {
      this.#sourcePort = firstSourcePort;
      const { conntrack } = this.#maps.byName;
      conntrack.deleteBatch([...conntrack.keys()]);
    }
    return this.#sourcePort++;
  }
}

/** The pod's address of the peer's family, if it has one. */
export function ownAddress(pod: Pod, peer: IpAddress): string | undefined {
  return (pod.status?.podIPs ?? []).find(({ ip: text }) => text.includes(':') === (bitsOf(peer.family) === 128))?.ip;
}

function frameOf(flow: JudgedFlow, own: string, sourcePort: number): Uint8Array {
  const peer = formatIp(flow.peer);
  const [from, to] = flow.direction === 'egress' ? [own, peer] : [peer, own];
  switch (flow.protocol) {
    case 'TCP':
      return ip(from, to, 6, tcpHeader(sourcePort, flow.port, tcpFlag.syn));
    case 'ICMP':
      return flow.peer.family === 4
        ? ip(from, to, 1, icmpHeader(8, 0, sourcePort))
        : ip(from, to, 58, icmpHeader(128, 0, sourcePort));
    default:
      // An SCTP INIT has verification tag 0 (RFC 9260 §8.5.1).
      return ip(from, to, protocolNumber(flow.protocol) ?? 17, udpHeader(sourcePort, flow.port, 0));
  }
}
