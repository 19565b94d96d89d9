/** The suites are whole, the oracle says what upstream states, and the compiler says what the oracle says. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { SuiteCase } from './case.ts';
import { compileWorld, simulatedVerdict } from './compiler.ts';
import { cyclonus, cyclonusDefault, cyclonusGroups } from './cyclonus.ts';
import { families, plannedAddressing } from './scene.ts';
import { formatDifference, statedTable, TruthTable } from './truth-table.ts';
import { upstreamE2e } from './upstream-e2e.ts';
import { walk } from './walk.ts';

const suites = { 'upstream e2e': upstreamE2e, cyclonus } as const;

describe('the suites', () => {
  it('hold the 48 upstream and the 230 cyclonus cases, 114 of which cyclonus runs by default', () => {
    const counts = Object.fromEntries(Object.entries(cyclonusGroups).map(([name, group]) => [name, group.length]));
    assert.deepEqual(counts, {
      target: 6,
      rules: 4,
      peers: 112,
      'port/protocol': 70,
      example: 1,
      action: 6,
      conflict: 16,
      'default-label': 2,
      'upstream-e2e': 13,
    });
    assert.equal(cyclonus.length, 230);
    assert.equal(cyclonusDefault.length, 114);
    const byProtocol = (tag: string): number => upstreamE2e.filter(({ tags }) => tags.includes(tag)).length;
    assert.deepEqual([byProtocol('tcp'), byProtocol('udp'), byProtocol('sctp')], [42, 3, 3]);
    assert.equal(upstreamE2e.length, 48);
  });

  it('name every case once, and no two cases are the same', () => {
    for (const cases of Object.values(suites)) {
      assert.equal(new Set(cases.map(({ name }) => name)).size, cases.length);
    }
    // cyclonus' "select by label" is its base policy; its own "namespace x" is too. Everything else differs.
    const contents = cyclonus.map(({ steps }) => JSON.stringify(steps));
    const repeated = contents.filter((text, index) => contents.indexOf(text) !== index).length;
    assert.ok(repeated <= 4, `${repeated} cases repeat another`);
  });

  it('state an expectation for every step of the upstream cases', () => {
    for (const { name, steps } of upstreamE2e) {
      for (const { expect } of steps) assert.ok((expect ?? []).length > 0, name);
    }
  });
});

describe('the oracle', () => {
  for (const one of upstreamE2e) {
    it(`says what upstream states: ${one.name}`, () => {
      for (const { number, step, tables } of walk(one, plannedAddressing())) {
        for (const stated of step.expect ?? []) {
          for (const family of families) {
            const found = tables.find(
              ({ probe }) =>
                probe.family === family && probe.port === stated.port && probe.protocol === stated.protocol,
            );
            assert.ok(found);
            const wanted = statedTable(found.expected.pods, stated);
            const wrong = found.expected.differences(wanted).length > 0;
            assert.ok(!wrong, `step ${number}\n${formatDifference(found.probe, wanted, found.expected)}`);
          }
        }
      }
    });
  }
});

/** Compares every table of the case; answers how many cells there were. */
function compareCompiled(one: SuiteCase): number {
  let cells = 0;
  for (const { number, scene, tables } of walk(one, plannedAddressing())) {
    const compiled = compileWorld(scene.world());
    const policies = new Map(scene.podNames.map((pod) => [pod, compiled.policyOf(scene.pod(pod))]));
    for (const { probe, expected } of tables) {
      const allows = (pod: string, peer: (typeof scene.podNames)[number], direction: 'ingress' | 'egress'): boolean => {
        const policy = policies.get(pod as never);
        assert.ok(policy);
        const flow = { direction, peer: scene.addressOf(peer, probe.family), ...probe };
        return simulatedVerdict(compiled, policy, flow) === 'allow';
      };
      const seen = TruthTable.of(scene.podNames, (from, to) =>
        from === to || (allows(from, to, 'egress') && allows(to, from, 'ingress')) ? 'reached' : 'timeout',
      );
      assert.equal(
        seen.differences(expected).length,
        0,
        `${one.name}, step ${number}\n${formatDifference(probe, expected, seen)}`,
      );
      cells += scene.podNames.length ** 2;
    }
  }
  return cells;
}

describe('the compiler', () => {
  for (const [suite, cases] of Object.entries(suites)) {
    it(`says what the oracle says in all ${cases.length} cases of ${suite}`, () => {
      const cells = cases.reduce((sum, one) => sum + compareCompiled(one), 0);
      assert.ok(cells > cases.length * 12 * 81 - 1, `${cells} cells`);
    });
  }
});

describe('a difference', () => {
  it('is printed as a table that a person can read', () => {
    const pods = ['x/a', 'x/b', 'y/a'] as const;
    const expected = TruthTable.of(pods, (from, to) => (to === 'x/a' && from !== to ? 'timeout' : 'reached'));
    const seen = TruthTable.of(pods, (from, to) => (from === 'x/b' && to === 'y/a' ? 'refused' : 'reached'));
    const text = formatDifference({ family: 4, protocol: 'TCP', port: 80 }, expected, seen);
    assert.equal(
      text.replace(/ +$/gm, ''),
      [
        'TCP 80 over IPv4, from (rows) to (columns); . reached, X timeout, R refused, E error',
        '    expected      seen',
        '    x/a x/b y/a   x/a x/b y/a',
        'x/a  .   .   .     .   .   .',
        'x/b  X   .   .     .<  .   R<',
        'y/a  X   .   .     .<  .   .',
      ].join('\n'),
    );
  });
});
