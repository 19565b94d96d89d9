/** A file that says which control-plane process serves: it counts only while that process lives. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LabLayout } from '../layout.ts';
import { identifyProcess, isAlive, type ProcessId } from '../process.ts';
import { writeFileAtomically } from './state.ts';

function readyFile(lab: LabLayout): string {
  return join(lab.dir, 'control-plane.ready');
}

export function markControlPlaneReady(lab: LabLayout): void {
  writeFileAtomically(readyFile(lab), JSON.stringify(identifyProcess(process.pid)));
}

export function isControlPlaneReady(lab: LabLayout): boolean {
  try {
    return isAlive(JSON.parse(readFileSync(readyFile(lab), 'utf8')) as ProcessId);
  } catch {
    return false;
  }
}
