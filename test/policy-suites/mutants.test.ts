/**
 * Do the suites and the fuzzing see anything? Each mutant of the compiler must be caught by random worlds, and most by
 * the suites too; how many verdicts that took is printed. The sources unchanged, through the same copy, must agree.
 */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Pod } from '../../src/api/kubernetes.ts';
import { evaluate } from '../../src/policy/oracle.ts';
import { flowsOf, world as anyWorld } from '../../src/policy/world.ts';
import type { PodName, SuiteCase } from './case.ts';
import { compileWorld, simulatedVerdict, type CompilerModules } from './compiler.ts';
import { cyclonus } from './cyclonus.ts';
import { MutantSources, mutations } from './mutants.ts';
import { plannedAddressing } from './scene.ts';
import { upstreamE2e } from './upstream-e2e.ts';
import { allProbes, walk } from './walk.ts';

/** At most so many verdicts to find the mistake in; the rarest take 10,000. */
const fuzzLimit = 500_000;
/** So many must show no difference where there is none. */
const controlVerdicts = 100_000;

interface Search {
  readonly caught: boolean;
  readonly verdicts: number;
  /** Where the first difference is. */
  readonly where: string;
}

const isProtected = (pod: Pod): boolean => pod.spec?.hostNetwork !== true && pod.status?.phase === 'Running';
const scenes = anyWorld
  .filter(({ pods, policies }) => pods.some(isProtected) && policies.length > 0)
  .chain((world) => fc.tuple(fc.constant(world), fc.array(flowsOf(world), { minLength: 20, maxLength: 40 })));

/** Random worlds until the compiler and the oracle differ. */
function fuzz(modules: CompilerModules, seed: number, limit: number): Search {
  let verdicts = 0;
  for (let batch = 0; verdicts < limit; batch++) {
    for (const [world, flows] of fc.sample(scenes, { seed: seed + batch, numRuns: 20 })) {
      const compiled = compileWorld(world, modules);
      for (const pod of world.pods.filter(isProtected)) {
        const policy = compiled.policyOf(pod);
        for (const flow of flows) {
          verdicts++;
          const expected = evaluate(world, { ...flow, pod }).verdict;
          if (simulatedVerdict(compiled, policy, flow) !== expected)
            return { caught: true, verdicts, where: `batch ${batch}` };
        }
      }
    }
  }
  return { caught: false, verdicts, where: '' };
}

interface Fact {
  readonly case: string;
  readonly pod: PodName;
  readonly flow: Parameters<typeof simulatedVerdict>[2];
  readonly expected: 'allow' | 'deny';
}
interface SuiteScene {
  readonly world: Parameters<typeof compileWorld>[0];
  readonly pods: ReadonlyMap<PodName, Pod>;
  readonly facts: readonly Fact[];
}

/** Every flow of the suites with the oracle's verdict, worked out once for all mutants. */
function suiteScenes(cases: readonly SuiteCase[]): SuiteScene[] {
  return cases.flatMap((one) =>
    [...walk(one, plannedAddressing(), [])].map(({ scene }): SuiteScene => {
      const world = scene.world();
      const pods = new Map(scene.podNames.map((pod) => [pod, scene.pod(pod)]));
      const facts = [...pods].flatMap(([pod, object]) =>
        scene.podNames.flatMap((peer) =>
          allProbes().flatMap(({ family, protocol, port }) =>
            (['ingress', 'egress'] as const).map((direction): Fact => {
              const flow = { direction, peer: scene.addressOf(peer, family), protocol, port };
              return { case: one.name, pod, flow, expected: evaluate(world, { ...flow, pod: object }).verdict };
            }),
          ),
        ),
      );
      return { world, pods, facts };
    }),
  );
}

function judgeSuites(modules: CompilerModules, suites: readonly SuiteScene[]): Search {
  let verdicts = 0;
  for (const { world, pods, facts } of suites) {
    const compiled = compileWorld(world, modules);
    const policies = new Map([...pods].map(([name, pod]) => [name, compiled.policyOf(pod)]));
    for (const { pod, flow, expected, case: name } of facts) {
      verdicts++;
      const policy = policies.get(pod);
      assert.ok(policy);
      if (simulatedVerdict(compiled, policy, flow) !== expected) return { caught: true, verdicts, where: name };
    }
  }
  return { caught: false, verdicts, where: '' };
}

/**
 * What the suites cannot see: their pods never end, call the same port by the same name, have sound policies with
 * policyTypes, and never talk to nodes; and where they say NotIn, everyone has the label.
 */
const onlyByFuzzing: readonly string[] = [
  'a named port is resolved on the source',
  'NotIn demands the label',
  'without policyTypes egress is always isolated',
  'without policyTypes ingress is isolated only with ingress rules',
  'pods that have ended keep their address',
  'a subject that is not understood selects nobody',
  'the node is an outsider as soon as an ipBlock contains it',
];

describe('mutants of the compiler', () => {
  const seed = Math.floor(Math.random() * 0x7000_0000);
  const suites = suiteScenes([...upstreamE2e, ...cyclonus]);

  it('do not include the compiler itself', async () => {
    using sources = new MutantSources();
    const modules = await sources.load();
    assert.equal(judgeSuites(modules, suites).caught, false);
    assert.equal(fuzz(modules, seed, controlVerdicts).caught, false, `seed ${seed}`);
  });

  for (const mutation of mutations) {
    it(`"${mutation.name}" is caught`, async () => {
      using sources = new MutantSources(mutation);
      const modules = await sources.load();
      const bySuites = judgeSuites(modules, suites);
      const byFuzzing = fuzz(modules, seed, fuzzLimit);
      const said = bySuites.caught ? `after ${bySuites.verdicts} verdicts (${bySuites.where})` : 'not by the suites';
      console.log(`# ${mutation.name}: fuzzing after ${byFuzzing.verdicts} verdicts, seed ${seed}; suites ${said}`);
      assert.ok(byFuzzing.caught, `not by ${byFuzzing.verdicts} random verdicts, seed ${seed}`);
      assert.equal(bySuites.caught, !onlyByFuzzing.includes(mutation.name));
    });
  }
});
