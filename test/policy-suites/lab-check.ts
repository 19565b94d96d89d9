/** The tables of a moment by real packets: a whole pass over all cells must be as expected, or it is done again. */

import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import type { PodName } from './case.ts';
import type { LabCluster } from './lab-cluster.ts';
import type { ProbeRequest } from './prober.ts';
import { splitName } from './scene.ts';
import { formatDifference, TruthTable, type Outcome } from './truth-table.ts';
import type { Moment } from './walk.ts';

/** An allowed probe is answered within a few milliseconds: 0.4 s of nothing are a drop. */
const deniedTimeoutMs = 400;
/** A busy machine may keep an allowed one waiting; a SYN is repeated after 1 s. */
const allowedTimeoutMs = 3_000;
/** How long the cluster may take to do what the API was told. */
const convergenceMs = 5_000;

export interface Passes {
  passes: number;
  cells: number;
}

/** Fails with the truth tables that differ when no pass within the convergence time is right in every cell. */
export async function checkMoment(
  lab: LabCluster,
  moment: Moment,
  says: string,
  withinMs = convergenceMs,
): Promise<Passes> {
  const start = performance.now();
  const result: Passes = { passes: 0, cells: 0 };
  for (;;) {
    const seen = await probeOnce(lab, moment);
    result.passes++;
    result.cells += moment.tables.length * moment.scene.podNames.length ** 2;
    const wrong = moment.tables.flatMap(({ probe, expected }, index) => {
      const table = seen[index] ?? new TruthTable([]);
      return table.differences(expected).length === 0 ? [] : [formatDifference(probe, expected, table)];
    });
    if (wrong.length === 0) return result;
    const elapsedMs = performance.now() - start;
    // On a busy machine one pass alone may take longer than that.
    const again = elapsedMs < withinMs || (withinMs > 0 && result.passes === 1);
    assert.ok(again, `${says}, after ${Math.round(elapsedMs)} ms\n${wrong.join('\n\n')}`);
    await delay(100);
  }
}

async function probeOnce(lab: LabCluster, { scene, tables }: Moment): Promise<TruthTable[]> {
  const seen = tables.map(() => new TruthTable(scene.podNames));
  await Promise.all(
    scene.podNames.map(async (from) => {
      const cells = tables.flatMap((_, index) => scene.podNames.map((to) => ({ index, to })));
      const requests = cells.map(({ index, to }): ProbeRequest => {
        const table = tables[index];
        assert.ok(table !== undefined && table.probe.protocol !== 'SCTP');
        const denied = table.expected.get(from, to) !== 'reached';
        return {
          address: lab.addressing(to)[table.probe.family],
          port: table.probe.port,
          protocol: table.probe.protocol,
          expect: `${splitName(to).name}\n`,
          timeoutMs: denied ? deniedTimeoutMs : allowedTimeoutMs,
        };
      });
      const outcomes = await lab.proberOf(from).probe(requests);
      for (const [at, { index, to }] of cells.entries()) seen[index]?.set(from, to, outcomeOf(outcomes[at], from, to));
    }),
  );
  return seen;
}

function outcomeOf(text: string | undefined, from: PodName, to: PodName): Outcome {
  if (text === 'reached' || text === 'timeout' || text === 'refused') return text;
  console.log(`# ${from} to ${to}: ${text ?? 'no answer'}`);
  return 'error';
}
