/** Cost of one packet of an established connection in the program, run by the kernel itself (BPF_PROG_TEST_RUN). */
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

export const datapathSuite: Suite = {
  name: 'datapath',
  describe: 'nanoseconds per packet of an established connection, with 1 and 10,000 policy entries',
  run({ quick, log }) {
    using bpffs = new TestBpffs();
    using pair = new TestPair('veth');
    using datapath = Datapath.open({ bpffsDir: bpffs.path });
    datapath.attach({ endpointId, netns: pair.pod, interfaceName: pair.interfaceName });
    const object = readEndpointObject();
    using maps = DatapathMaps.open(bpffs.path, object.spec, {});
    using programs = loadEndpointPrograms(object, maps.byName, endpointId);
    const program = programs.program('from_endpoint');
    const measure = (count: number): number[] => {
      datapath.setPolicy(endpointId, { isolated: { ingress: true, egress: true }, entries: entries(count) });
      const frame = ip('10.0.0.10', '10.0.0.20', TCP, tcpHeader(4000, 443, tcpFlag.ack));
      program.testRun(ip('10.0.0.10', '10.0.0.20', TCP, tcpHeader(4000, 443, tcpFlag.syn)));
      const repeat = quick ? 100_000 : 1_000_000;
      program.testRun(frame, { repeat });
      return Array.from({ length: quick ? 5 : 9 }, () => program.testRun(frame, { repeat }).durationNs);
    };
    log('1 entry');
    const one = spread(measure(1));
    log(`${manyEntries} entries`);
    const many = spread(measure(manyEntries));
    const row = { suite: 'datapath', metric: 'cost of an established packet', unit: 'ns' };
    const rows: BenchRow[] = [
      { ...row, case: baselineName, ...one, baseline: null, ratio: null },
      { ...row, case: `${manyEntries} entries`, ...many, baseline: baselineName, ratio: many.value / one.value },
    ];
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
