/** A case step by step: the scene after each step with the tables to expect of it. */

import { protocols, servedPorts, type Action, type Protocol, type Step, type SuiteCase } from './case.ts';
import { families, Scene, type Addressing } from './scene.ts';
import { expectedTable, type Probe, type TruthTable } from './truth-table.ts';

export interface Moment {
  /** 1-based. */
  readonly number: number;
  readonly step: Step;
  readonly scene: Scene;
  readonly tables: readonly { readonly probe: Probe; readonly expected: TruthTable }[];
}

export const allProbes = (over: readonly Protocol[] = protocols): readonly Probe[] =>
  families.flatMap((family) => servedPorts.flatMap((port) => over.map((protocol) => ({ family, protocol, port }))));

/** The scene is one object that changes: use each moment before asking for the next. */
export function* walk(one: SuiteCase, addressing: Addressing, probes = allProbes()): Generator<Moment> {
  const scene = new Scene(addressing);
  for (const [index, step] of one.steps.entries()) {
    for (const action of step.actions) scene.apply(action);
    yield momentOf(index, step, scene, probes);
  }
}

/** The same where a real cluster follows: it does each action first, since it gives new pods their addresses. */
export async function* walkAlong(
  one: SuiteCase,
  addressing: Addressing,
  probes: readonly Probe[],
  act: (action: Action, scene: Scene) => Promise<void>,
): AsyncGenerator<Moment> {
  const scene = new Scene(addressing);
  for (const [index, step] of one.steps.entries()) {
    for (const action of step.actions) {
      await act(action, scene);
      scene.apply(action);
    }
    yield momentOf(index, step, scene, probes);
  }
}

function momentOf(index: number, step: Step, scene: Scene, probes: readonly Probe[]): Moment {
  const tables = probes.map((probe) => ({ probe, expected: expectedTable(scene, probe) }));
  return { number: index + 1, step, scene, tables };
}
