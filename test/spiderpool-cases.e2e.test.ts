/** The cases of Spiderpool's own end-to-end catalogue (docs/reference/spiderpool-cases.md), all in one lab. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { affinityCases } from './cases/affinity.ts';
import { annotationCases } from './cases/annotation.ts';
import { assignCases } from './cases/assign.ts';
import { bedUp, type Bed } from './cases/bed.ts';
import { detectionCases } from './cases/detection.ts';
import { ipamCommandCases } from './cases/ipam-commands.ts';
import { ippoolCases } from './cases/ippool.ts';
import { multusCases } from './cases/multus.ts';
import { refusedMultusCases } from './cases/multus-refused.ts';
import { nodePortCases } from './cases/node-port.ts';
import { outageCases } from './cases/outages.ts';
import { overlayCases } from './cases/overlay.ts';
import { reclaimCases } from './cases/reclaim.ts';
import { reservedCases } from './cases/reserved.ts';
import { selectionCases } from './cases/selection.ts';
import { subnetCases } from './cases/subnet.ts';
import { underlayCases } from './cases/underlay.ts';

describe('Spiderpool’s cases', () => {
  let bed: Bed | undefined;
  before(async () => {
    bed = await bedUp();
  });
  after(() => bed?.down());
  const theBed = (): Bed => {
    if (bed === undefined) throw new Error('the lab is not up');
    return bed;
  };

  describe('side by side', { concurrency: 6 }, () => {
    ippoolCases(theBed);
    assignCases(theBed);
    affinityCases(theBed);
    annotationCases(theBed);
    reservedCases(theBed);
    multusCases(theBed);
    refusedMultusCases(theBed);
    underlayCases(theBed);
    overlayCases(theBed);
    nodePortCases(theBed);
    selectionCases(theBed);
    ipamCommandCases(theBed);
    reclaimCases(theBed);
    subnetCases(theBed);
  });

  describe('one after another', () => {
    detectionCases(theBed);
    outageCases(theBed);
  });

  it('needed no more rights than deploy/rbac.yaml gives', () => {
    const log = readFileSync(join(theBed().dir, 'logs', 'control-plane.log'), 'utf8');
    assert.deepEqual(/User .+ cannot .+/.exec(log), null);
  });
});
