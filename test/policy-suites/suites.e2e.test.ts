/**
 * The suites by real packets, in a lab of two nodes: policies through the API, nine pods that serve ports 80 and 81
 * over TCP and UDP, IPv4 and IPv6. Each step probes every pod from every pod. A denied probe must time out; a reset
 * or an ICMP error fails. All 48 upstream cases and cyclonus' default 114; SLUICE_FULL=1 runs all 230.
 *
 * The probes go to pod addresses. Kernels without SCTP sockets run the SCTP cases with TCP and UDP probes only: what
 * their policies do to those is on the wire, what they do to SCTP is judged by the kernel in suites.kernel.test.ts.
 */

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { create, type Action, type SuiteCase } from './case.ts';
import { cyclonus, cyclonusDefault } from './cyclonus.ts';
import { checkMoment } from './lab-check.ts';
import { LabCluster } from './lab-cluster.ts';
import { registerLabRows } from './lab-rows.ts';
import { upstreamE2e } from './upstream-e2e.ts';
import { allProbes, walkAlong } from './walk.ts';

const full = process.env['SLUICE_FULL'] === '1';
const probes = allProbes(['TCP', 'UDP']);

describe('the suites in a lab', () => {
  const lab = new LabCluster({ path: process.env['PATH'] ?? '', uid: process.getuid?.() });
  const total = { passes: 0, cells: 0, steps: 0 };

  before(() => lab.up());
  after(async () => {
    await lab.down();
    console.log(`# ${total.steps} steps, ${total.passes} passes, ${total.cells} probes`);
  });

  it('begins with everyone reaching everyone', async () => {
    await runCase({ name: 'no policies', tags: [], steps: [{ actions: [] }] });
  });

  it('sees what is not as expected, and prints it as a table', async () => {
    const steps = [{ actions: [create({ namespace: 'x', name: 'never-made', pods: {}, ingress: [] })] }];
    const nothing = (): Promise<void> => Promise.resolve();
    for await (const moment of walkAlong({ name: '', tags: [], steps }, lab.addressing, probes, nothing)) {
      await assert.rejects(checkMoment(lab, moment, 'a policy that is not there', 0), ({ message }: Error) => {
        assert.match(
          message,
          /^a policy that is not there, after \d+ ms\nTCP 80 over IPv4, from \(rows\) to \(columns\)/,
        );
        assert.match(message, /^y\/b ( X {2}){3}( \. {2}){6} {2}( \.< ){3}( \. {2}){6}$/m);
        return true;
      });
    }
  });

  for (const [suite, cases] of Object.entries({ upstream: upstreamE2e, cyclonus: full ? cyclonus : cyclonusDefault })) {
    for (const one of cases) it(`${suite}: ${one.name}`, () => runCase(one));
  }

  registerLabRows(lab);

  async function runCase(one: SuiteCase): Promise<void> {
    const done: Action[] = [];
    try {
      await runSteps(one, done);
    } finally {
      await lab.reset(done);
    }
  }

  /** Pods must be in the lab before the scene can ask for their addresses: each action goes to the lab first. */
  async function runSteps(one: SuiteCase, done: Action[]): Promise<void> {
    const moments = walkAlong(one, lab.addressing, probes, async (action, scene) => {
      done.push(action);
      await lab.apply(action, scene);
    });
    for await (const moment of moments) {
      const { passes, cells } = await checkMoment(lab, moment, `${one.name}, step ${moment.number}`);
      total.steps++;
      total.passes += passes;
      total.cells += cells;
    }
  }
});
