import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { BandwidthInfo } from '../api/agent-api.ts';
import { bandwidthLine, bpsText, renderBandwidths, renderTop, topLines } from './render-bandwidth.ts';

const base: BandwidthInfo = {
  ...{ node: 'node1', pod: { namespace: 'demo', name: 'web' }, interface: 'eth0', direction: 'egress' },
  ...{ limitBps: 100_000_000, source: 'pod-annotation', mechanism: 'tbf+fq_codel', rateBps: 95_000_000 },
  statistics: { bytes: 1, packets: 1, drops: 12, backlogBytes: 2048, backlogPackets: 2 },
};
const { mechanism: _, statistics: __, rateBps: ___, ...lost } = base;
const other: BandwidthInfo = {
  ...{ ...base, pod: { namespace: 'demo', name: 'db' }, rateBps: 1_200_000, limitBps: 1_000_000_000 },
  statistics: { bytes: 1, packets: 1, drops: 500, backlogBytes: 0, backlogPackets: 0 },
};

describe('bandwidth commands', () => {
  it('list shows limit, source, mechanism, rate, drops and backlog, and what the kernel cannot do', () => {
    const limits = [base, { ...lost, direction: 'ingress' as const, source: 'namespace-annotation' as const }];
    assert.equal(
      renderBandwidths([
        { node: 'node1', shortfalls: ['no ifb'], limits, unlimited: 3 },
        { node: 'node2', shortfalls: ['no ifb', 'no flow queues'], limits: [], unlimited: 0 },
      ]),
      [
        'NODE   POD       INTERFACE  DIRECTION  LIMIT       SOURCE                MECHANISM          RATE       DROPS  BACKLOG',
        'node1  demo/web  eth0       egress     100 Mbit/s  pod annotation        tbf+fq_codel       95 Mbit/s  12     2 KiB (0.164 ms)',
        'node1  demo/web  eth0       ingress    100 Mbit/s  namespace annotation  not in the kernel  -          -      -',
        '3 interfaces without a limit',
        '! node1, node2: no ifb',
        '! node2: no flow queues',
      ].join('\n'),
    );
    assert.equal(renderBandwidths([{ node: 'node1', shortfalls: [], limits: [], unlimited: 0 }]), 'no limits');
  });

  it('top sorts by the column asked for and counts drops between two rounds', () => {
    const before = [base, { ...other, statistics: { ...other.statistics, drops: 100 } as BandwidthInfo['statistics'] }];
    const names = (order: Parameters<typeof topLines>[3]): string[] =>
      topLines([other, base], before, 2000, order).map(({ pod }) => pod.name);
    assert.deepEqual(
      [names('share'), names('rate'), names('drops'), names('backlog')],
      [
        ['web', 'db'],
        ['web', 'db'],
        ['db', 'web'],
        ['web', 'db'],
      ],
    );
    const [first] = topLines([other, base], before, 2000, 'drops');
    assert.equal(first?.dropsPerSecond, 200);
    assert.match(
      renderTop(topLines([base], [], 2000, 'share')),
      /95 Mbit\/s +100 Mbit\/s +95 % +0 +2 KiB \(0\.164 ms\)/,
    );
  });

  it('names rates as people do', () => {
    const texts = [0, 999, 1_000, 1_500, 95_700_000, 1_234_000_000, 1e15].map(bpsText);
    assert.deepEqual(texts, [
      '0 bit/s',
      '999 bit/s',
      '1 kbit/s',
      '1.5 kbit/s',
      '95.7 Mbit/s',
      '1.23 Gbit/s',
      '1 Pbit/s',
    ]);
    assert.equal(bandwidthLine([base]), 'egress 100 Mbit/s (tbf+fq_codel, from pod annotation)');
    assert.equal(bandwidthLine([]), 'no limit');
  });
});
