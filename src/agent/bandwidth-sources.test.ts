import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Namespace } from '../api/kubernetes.ts';
import { formatErrorChain, SluiceError } from '../core/error.ts';
import type { EventNote } from '../kube/event-recorder.ts';
import { limitsOf, ownLimits, runtimeBandwidth, type LimitQuestion } from './bandwidth-sources.ts';
import { NamespaceBandwidth } from './namespace-bandwidth.ts';

const annotation = { ingress: 'kubernetes.io/ingress-bandwidth', egress: 'kubernetes.io/egress-bandwidth' };
const networks = 'k8s.v1.cni.cncf.io/networks';

function ask(annotations: Record<string, string>, change: Partial<LimitQuestion> = {}) {
  const pod = { namespace: 'demo', name: 'web', annotations };
  return limitsOf({
    ...{ pod, interfaceName: 'eth0', primary: true, runtime: {}, defaults: {}, inForce: {} },
    ...change,
  });
}

function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    assert(error instanceof SluiceError);
    assert.equal(error.code, 'invalid_resource');
    return formatErrorChain(error);
  }
  return assert.fail('was not refused');
}

describe('bandwidth annotations', () => {
  it('limit their own direction', () => {
    const limit = { bps: 2_500_000, source: 'pod-annotation' };
    assert.deepEqual(ask({ [annotation.ingress]: '2.5M' }), { ingress: limit });
    assert.deepEqual(ask({ [annotation.egress]: '2.5M' }), { egress: limit });
    assert.deepEqual(ask({}), {});
  });

  const bad: [string, string][] = [
    ['', 'is not a quantity'],
    ['100 M', 'is not a quantity'],
    ['100K', 'is not a quantity'],
    ['999', 'resource is unreasonably small (< 1kbit)'],
    ['-5M', 'resource is unreasonably small (< 1kbit)'],
    ['1001T', 'resource is unreasonably large (> 1Pbit)'],
  ];
  for (const [text, problem] of bad) {
    it(`refuses ${JSON.stringify(text)}: ${problem}, naming pod, annotation and range`, () => {
      const shown = refusal(() => ask({ [annotation.egress]: text }));
      const field = `metadata.annotations[${annotation.egress}]: ${JSON.stringify(text)} ${problem}`;
      for (const part of ['pod demo/web', field, 'between 1k and 1P', '100M']) {
        assert(shown.includes(part), `${shown} says ${part}`);
      }
    });
  }
});

describe('who wins', () => {
  const runtime = { ingressBps: 5_000, egressBps: 6_000 };
  const defaults = { ingress: 7_000, egress: 8_000 };

  it('the pod’s annotation, then the runtime, then the namespace, direction by direction', () => {
    assert.deepEqual(ask({ [annotation.egress]: '9k' }, { runtime, defaults }), {
      ingress: { bps: 5_000, source: 'runtime' },
      egress: { bps: 9_000, source: 'pod-annotation' },
    });
    assert.deepEqual(ask({}, { runtime: { egressBps: 6_000 }, defaults }), {
      ingress: { bps: 7_000, source: 'namespace-annotation' },
      egress: { bps: 6_000, source: 'runtime' },
    });
  });

  it('another interface has the limit of its own network selection, of nothing else but the runtime', () => {
    const pod = (bandwidth: unknown) => ({
      [annotation.egress]: '1M',
      [networks]: JSON.stringify([{ name: 'a' }, { name: 'b', interface: 'data', bandwidth }]),
    });
    const data = { interfaceName: 'data', primary: false, defaults };
    assert.deepEqual(ask(pod({ ingressRate: 20_000, egressRate: 0, egressBurst: 9 }), data), {
      ingress: { bps: 20_000, source: 'network-selection' },
    });
    assert.deepEqual(ask(pod({ ingressRate: 20_000 }), { ...data, runtime }), {
      ingress: { bps: 20_000, source: 'network-selection' },
      egress: { bps: 6_000, source: 'runtime' },
    });
    assert.deepEqual(ask(pod({ ingressRate: 20_000 }), { ...data, interfaceName: 'net1' }), {});
    const shown = refusal(() => ask(pod({ egressRate: 12 }), data));
    assert.match(
      shown,
      /annotations\[k8s\.v1\.cni\.cncf\.io\/networks\]: egressRate of data: 12 resource is unreasonably small/,
    );
  });

  it('a runtime that repeats an annotation does not outlive it, and never brings its burst', () => {
    const bandwidth = { ingressRate: 5_000, ingressBurst: 4_294_967_295, egressRate: 0, egressBurst: 9 };
    assert.deepEqual(runtimeBandwidth(bandwidth, {}), { ingressBps: 5_000, egressBps: undefined });
    const own = ownLimits({ namespace: 'demo', name: 'web', annotations: { [annotation.ingress]: '5k' } }, 'eth0');
    assert.deepEqual(runtimeBandwidth(bandwidth, own), { ingressBps: undefined, egressBps: undefined });
    assert.deepEqual(runtimeBandwidth(undefined, {}), { ingressBps: undefined, egressBps: undefined });
  });

  it('a malformed default leaves what is in force, and gives new pods none', () => {
    const malformed = { defaults: { egress: 'malformed' } } as const;
    const byDefault = { egress: { bps: 8_000, source: 'namespace-annotation' } } as const;
    assert.deepEqual(ask({}, { ...malformed, inForce: byDefault }), byDefault);
    assert.deepEqual(ask({}, { ...malformed, inForce: { egress: { bps: 1_000, source: 'pod-annotation' } } }), {});
    assert.deepEqual(ask({}, malformed), {});
  });
});

describe('a namespace’s defaults', () => {
  it('are read from its annotations; a malformed one is told once, on the namespace, with what is in force', () => {
    const handlers: ((object: Namespace, old: Namespace) => void)[] = [];
    let present: Namespace = { metadata: { name: 'demo' } };
    const notes: EventNote[] = [];
    const source = {
      get: () => present,
      on(_: string, handler: (object: Namespace, old: Namespace) => void) {
        handlers.push(handler);
        return this;
      },
    };
    const defaults = new NamespaceBandwidth({ namespaces: source, record: (note) => notes.push(note) });
    const seen = ['10M', 'fast', 'fast', '2E'].map((text) => {
      const old = present;
      present = { metadata: { name: 'demo', annotations: { [annotation.egress]: text } } };
      handlers[1]?.(present, old);
      return defaults.of('demo').egress;
    });
    assert.deepEqual(seen, [10_000_000, 'malformed', 'malformed', 'malformed']);
    assert.deepEqual(
      notes.map(({ reason, shared, about }) => [reason, shared, about.kind, about.name]),
      Array(2).fill(['InvalidBandwidth', true, 'Namespace', 'demo']),
    );
    assert.match(notes[0]?.message ?? '', /egress-bandwidth\]: "fast" is not a quantity; pods start without a default/);
  });
});
