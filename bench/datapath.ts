/** Cost of one packet in the program, run by the kernel itself (BPF_PROG_TEST_RUN). */
import { Datapath, type PolicyEntry } from '../src/datapath/datapath.ts';
import { DatapathMaps } from '../src/datapath/maps.ts';
import { ip, tcpFlag, tcpHeader } from '../src/datapath/packets.ts';
import { loadEndpointPrograms, readEndpointObject } from '../src/datapath/programs.ts';
import { TestBpffs, TestPair } from '../src/datapath/test-bed.ts';
import { type BenchRow, type Suite, spread } from './report.ts';

const endpointId = 7;
const TCP = 6;
const manyEntries = 10_000;
const baselineName = '1 entry';

const tcp = (port: number, flags: number): Uint8Array =>
  ip('10.0.0.10', '10.0.0.20', TCP, tcpHeader(4000, port, flags));

/** By what they cost, each in the state that the one before left. A SYN is judged, and its connection recorded, every time. */
const frames = {
  'a new connection': tcp(443, tcpFlag.syn),
  'an established packet': tcp(443, tcpFlag.ack),
  'a denied packet': tcp(444, tcpFlag.syn),
} as const;

export const datapathSuite: Suite = {
  name: 'datapath',
  describe: 'nanoseconds per packet (new, established, denied), with 1 and 10,000 policy entries',
  run({ quick, log }) {
    using bpffs = new TestBpffs();
    using pair = new TestPair('veth');
    using datapath = Datapath.open({ bpffsDir: bpffs.path });
    datapath.attach({ endpointId, netns: pair.pod, interfaceName: pair.interfaceName });
    const object = readEndpointObject();
    using maps = DatapathMaps.open(bpffs.path, object.spec, {});
    using programs = loadEndpointPrograms(object, maps.byName, endpointId);
    const program = programs.program('from_endpoint');
    const repeat = quick ? 100_000 : 1_000_000;
    const measure = (frame: Uint8Array): ReturnType<typeof spread> => {
      program.testRun(frame, { repeat });
      return spread(Array.from({ length: quick ? 5 : 9 }, () => program.testRun(frame, { repeat }).durationNs));
    };
    const rows: BenchRow[] = [];
    const baselines = new Map<string, number>();
    for (const count of [1, manyEntries]) {
      log(`${count} policy entries`);
      datapath.setPolicy(endpointId, { isolated: { ingress: true, egress: true }, entries: entries(count) });
      for (const [name, frame] of Object.entries(frames)) {
        const cost = measure(frame);
        const one = baselines.get(name);
        const row = { suite: 'datapath', metric: `cost of ${name}`, unit: 'ns', ...cost };
        if (one === undefined) rows.push({ ...row, case: baselineName, baseline: null, ratio: null });
        else rows.push({ ...row, case: `${count} entries`, baseline: baselineName, ratio: cost.value / one });
        baselines.set(name, one ?? cost.value);
      }
    }
    return Promise.resolve(rows);
  },
};

/** One that allows the connection, the others for peers that never show up. */
function entries(count: number): PolicyEntry[] {
  return Array.from({ length: count }, (_, index) => ({
    direction: 'egress',
    identity: index === 0 ? 0 : 1000 + index,
    protocol: TCP,
    port: 443,
    portPrefixLen: 16,
    ruleId: index + 1,
    action: 'allow',
  }));
}
