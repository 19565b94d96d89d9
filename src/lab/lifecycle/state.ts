/** DIR/lab.json: what a lab is. Written before anything else is made and removed after everything else is gone. */
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { EnforcementMode } from '../../api/agent-api.ts';
import { SluiceError } from '../../core/error.ts';
import { labLayout, runDirPrefix, runRoot, type LabLayout } from '../layout.ts';

export const linkKinds = ['ipvlan', 'macvlan'] as const;
export type LinkKind = (typeof linkKinds)[number];

export interface LabState {
  readonly id: string;
  readonly dir: string;
  readonly nodes: number;
  readonly link: LinkKind;
  /** Of the agents; default: `default`. */
  readonly policyEnforcement?: EnforcementMode | undefined;
  readonly apiHost: string;
  readonly apiPort: number;
  readonly webhookPort: number;
  readonly healthPort: number;
  readonly createdAt: string;
  /** PATH for plugins and node processes. */
  readonly path: string;
  /** The lab lives in the virtual machine of this directory; ids and sockets are the guest's. */
  readonly vm?: { readonly guestDir: string };
}

/** From DIR, else from what a lab of this DIR left under /run. */
export function readLabState(dir: string): LabState | undefined {
  const own = readState(join(dir, 'lab.json'));
  if (own !== undefined) return own;
  return listRunStates().find((state) => state.dir === dir);
}

function listRunStates(): LabState[] {
  const names = readdirSync(runRoot).filter((name) => name.startsWith(runDirPrefix));
  return names.flatMap((name) => readState(join(runRoot, name, 'lab.json')) ?? []);
}

export function writeLabState(state: LabState): LabLayout {
  const layout = labLayout(state);
  const text = `${JSON.stringify(state, undefined, 2)}\n`;
  // /run first: a lab of which only that copy was written can be found by its directory's name too.
  const files = state.vm === undefined ? [layout.runStateFile, layout.stateFile] : [layout.stateFile];
  for (const file of files) writeFileAtomically(file, text);
  return layout;
}

export function writeFileAtomically(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  writeFileSync(`${file}.new`, text, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

export function mustLabState(dir: string): LabState {
  const state = readLabState(dir);
  if (state !== undefined) return state;
  throw new SluiceError({
    code: 'not_found',
    operation: 'find',
    object: `lab in ${dir}`,
    what: 'there is none',
    remedy: 'sluice lab up, or name its directory with --dir',
  });
}

function readState(file: string): LabState | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as LabState;
  } catch {
    return undefined;
  }
}
