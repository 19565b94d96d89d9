/** The two programs of an endpoint: the committed object, with the endpoint's id as a constant. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type BpfMap,
  type BpfProgram,
  type Collection,
  type CollectionSpec,
  loadCollection,
  parseCollection,
} from '../kernel/index.ts';
import { packageRoot } from '../kernel/package-root.ts';
import { endpointIdKey, type Direction } from './abi.ts';

export const programNames = { ingress: 'to_endpoint', egress: 'from_endpoint' } as const satisfies Record<
  Direction,
  string
>;

export interface EndpointObject {
  readonly spec: CollectionSpec;
  /** Names the version of the programs: pins of another version are replaced. */
  readonly digest: string;
}

export function endpointObjectPath(): string {
  return join(packageRoot(), 'bpf', 'build', 'endpoint.bpf.o');
}

export function readEndpointObject(path = endpointObjectPath()): EndpointObject {
  const bytes = readFileSync(path);
  return {
    spec: parseCollection(bytes, 'endpoint.bpf.o'),
    digest: createHash('sha256').update(bytes).digest('hex').slice(0, 12),
  };
}

/** Verifies and loads both programs. The maps stay the caller's. */
export function loadEndpointPrograms(
  object: EndpointObject,
  maps: Readonly<Record<string, BpfMap>>,
  endpointId: number,
): Collection {
  return loadCollection(object.spec, {
    maps,
    constants: { endpoint_id: endpointIdKey.encode({ endpointId }) },
  });
}

/** One of the two, the caller's. */
export function loadEndpointProgram(
  object: EndpointObject,
  maps: Readonly<Record<string, BpfMap>>,
  endpointId: number,
  direction: Direction,
): BpfProgram {
  const name = programNames[direction];
  const programs = new Map([...object.spec.programs].filter(([candidate]) => candidate === name));
  const spec = { ...object.spec, programs };
  // All maps are given, so the collection owns nothing but the program.
  return loadEndpointPrograms({ ...object, spec }, maps, endpointId).program(name);
}
