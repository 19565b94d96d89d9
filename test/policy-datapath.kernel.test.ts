/**
 * From API objects to verdicts, through every layer: random policies are compiled, written to the kernel's maps and
 * judged by the committed eBPF programs (BPF_PROG_TEST_RUN), and the verdict of each first packet is compared with
 * the naive oracle's. What src/policy/simulate.ts claims about the programs is so checked against the programs.
 *
 * Each run judges 100,000 packets (SLUICE_FUZZ_VERDICTS) of worlds that it has not seen before. A failure is shrunk and
 * names its seed and path: SLUICE_FUZZ_SEED=… SLUICE_FUZZ_PATH=… runs it again.
 */

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import type { Pod } from '../src/api/kubernetes.ts';
import { formatIp, parseIp, type IpAddress } from '../src/core/ip.ts';
import { checkUntil } from '../src/core/property.ts';
import { reservedIdentity } from '../src/datapath/abi.ts';
import type { PolicyEntry as DatapathEntry } from '../src/datapath/datapath.ts';
import { whyNoKernelTests } from '../src/datapath/test-bed.ts';
import type { PolicyEntry } from '../src/policy/compile.ts';
import { anyIdentity, hostIdentity, worldIdentity } from '../src/policy/identity.ts';
import { evaluate, type World } from '../src/policy/oracle.ts';
import { flowsOf, world as anyWorld, type FlowShape } from '../src/policy/world.ts';
import { compileWorld } from './policy-suites/compiler.ts';
import { fuzzOptions } from './policy-suites/fuzz-options.ts';
import { KernelJudge, ownAddress } from './policy-suites/kernel-judge.ts';

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
  let judge: KernelJudge;

  before(() => {
    judge = new KernelJudge();
  });
  after(() => judge[Symbol.dispose]());

  const isProtected = (pod: Pod): boolean => pod.spec?.hostNetwork !== true && pod.status?.phase === 'Running';
  const scenes = anyWorld
    .filter(({ pods, policies }) => pods.some(isProtected) && policies.length > 0)
    .chain((world) => fc.tuple(fc.constant(world), fc.array(flowsOf(world), { minLength: 60, maxLength: 120 })));

  it('agree on every flow', () => {
    const { verdicts, ...options } = fuzzOptions(process.env);
    const judged = { allow: 0, deny: 0 };
    const count = (): number => judged.allow + judged.deny;
    checkUntil(
      fc.property(scenes, ([world, flows]) => {
        const compiled = compileWorld(world);
        judge.setAddresses(compiled);
        for (const pod of world.pods.filter(isProtected)) {
          judge.setPolicy(compiled.policyOf(pod));
          for (const flow of flows) {
            const verdict = compare(world, pod, flow);
            if (verdict !== undefined) judged[verdict]++;
          }
        }
      }),
      () => count() >= verdicts,
      { ...options, runs: 50 },
    );
    console.log(`# ${count()} verdicts: ${judged.allow} allow, ${judged.deny} deny`);
    // A generator that allows nearly everything, or nearly nothing, would prove little.
    if (options.path === undefined) assert.ok(Math.min(judged.allow, judged.deny) > verdicts / 10);
  });

  /** Throws when oracle and kernel differ; undefined for a pod's packets to itself, which never reach the interface. */
  function compare(world: World, pod: Pod, flow: FlowShape): 'allow' | 'deny' | undefined {
    const own = ownAddress(pod, flow.peer);
    if (own === undefined || own === formatIp(flow.peer)) return undefined;
    const expected = evaluate(world, { ...flow, pod }).verdict;
    const actual = judge.verdict(flow, parseIp(own) as IpAddress);
    const text = `${flow.direction} ${own} ${formatIp(flow.peer)} ${flow.protocol} ${flow.port}`;
    assert.equal(actual, expected, `${text}: the oracle says ${expected}`);
    return expected;
  }
});
