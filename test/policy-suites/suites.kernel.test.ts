/** All 48 upstream and 230 cyclonus cases by the kernel: compiled entries, the eBPF programs, one packet for each cell. */

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { whyNoKernelTests } from '../../src/datapath/test-bed.ts';
import type { PodName, SuiteCase } from './case.ts';
import { compileWorld } from './compiler.ts';
import { cyclonusGroups } from './cyclonus.ts';
import { KernelJudge } from './kernel-judge.ts';
import { plannedAddressing } from './scene.ts';
import { formatDifference, TruthTable } from './truth-table.ts';
import { upstreamE2e } from './upstream-e2e.ts';
import { walk, type Moment } from './walk.ts';

const reason = whyNoKernelTests();

describe('the suites in the kernel', { skip: reason ?? false }, () => {
  let judge: KernelJudge;

  before(() => {
    judge = new KernelJudge();
  });
  after(() => judge[Symbol.dispose]());

  for (const [suite, cases] of Object.entries({ 'upstream e2e': upstreamE2e, ...cyclonusGroups })) {
    it(`${suite}: ${cases.length} cases, IPv4 and IPv6, TCP, UDP and SCTP`, () => {
      const cells = cases.reduce((sum, one) => sum + checkCase(one), 0);
      assert.ok(cells >= cases.length * 12 * 81, `${cells} cells`);
    });
  }

  function checkCase(one: SuiteCase): number {
    let cells = 0;
    for (const moment of walk(one, plannedAddressing())) {
      const allowed = kernelVerdicts(moment);
      for (const [index, { probe, expected }] of moment.tables.entries()) {
        const allows = (pod: PodName, peer: PodName, direction: string): boolean =>
          allowed.get(`${index} ${pod} ${peer} ${direction}`) ?? false;
        const seen = TruthTable.of(moment.scene.podNames, (from, to) =>
          from === to || (allows(from, to, 'egress') && allows(to, from, 'ingress')) ? 'reached' : 'timeout',
        );
        const wrong = seen.differences(expected).length > 0;
        assert.ok(!wrong, `${one.name}, step ${moment.number}\n${formatDifference(probe, expected, seen)}`);
        cells += seen.pods.length ** 2;
      }
    }
    return cells;
  }

  /** Pod by pod, since the one endpoint is each of them in turn. */
  function kernelVerdicts({ scene, tables }: Moment): Map<string, boolean> {
    const compiled = compileWorld(scene.world());
    judge.setAddresses(compiled);
    const allowed = new Map<string, boolean>();
    for (const pod of scene.podNames) {
      judge.setPolicy(compiled.policyOf(scene.pod(pod)));
      for (const [index, { probe }] of tables.entries()) {
        const own = scene.addressOf(pod, probe.family);
        for (const peer of scene.podNames.filter((other) => other !== pod)) {
          for (const direction of ['ingress', 'egress'] as const) {
            const flow = { direction, peer: scene.addressOf(peer, probe.family), ...probe };
            allowed.set(`${index} ${pod} ${peer} ${direction}`, judge.verdict(flow, own) === 'allow');
          }
        }
      }
    }
    return allowed;
  }
});
