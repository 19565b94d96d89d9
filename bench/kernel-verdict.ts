/** What the datapath would find in its maps for a first packet: the same look-ups as bpf/policy.h, made from user space. */
import type { IpAddress } from '../src/core/ip.ts';
import {
  directions,
  encodeAddress,
  endpointIdKey,
  endpointStruct,
  IPCACHE_EXACT_BITS,
  ipcacheKey,
  ipcacheValue,
  policyKey,
  reservedIdentity,
  type Direction,
} from '../src/datapath/abi.ts';
import { BpfMap } from '../src/kernel/index.ts';
import { join } from 'node:path';

/** Bits of a policy key that name one protocol and one port. */
const policyFullBits = 96;

export interface FirstPacket {
  readonly endpointId: number;
  readonly direction: Direction;
  readonly remote: IpAddress;
  /** IP protocol number. */
  readonly protocol: number;
  readonly port: number;
}

export class KernelVerdict implements Disposable {
  readonly #endpoints: BpfMap;
  readonly #policy: BpfMap;
  readonly #ipcache: BpfMap;

  /** Over the maps that an agent has pinned. */
  constructor(bpffsDir: string) {
    this.#endpoints = mustOpen(join(bpffsDir, 'endpoints'));
    this.#policy = mustOpen(join(bpffsDir, 'policy'));
    this.#ipcache = mustOpen(join(bpffsDir, 'ipcache'));
  }

  allowed({ endpointId, direction, remote, protocol, port }: FirstPacket): boolean {
    const endpoint = this.#endpoints.lookup(endpointIdKey.encode({ endpointId }));
    if (endpoint === undefined) return false;
    const { policyId } = endpointStruct.decode(endpoint);
    return [this.#identityOf(remote), reservedIdentity.any].some((identity) => {
      const number = directions.indexOf(direction);
      const key = { prefixLen: policyFullBits, policyId, identity, direction: number, protocol, port };
      return this.#policy.lookup(policyKey.encode(key)) !== undefined;
    });
  }

  [Symbol.dispose](): void {
    for (const map of [this.#endpoints, this.#policy, this.#ipcache]) map.close();
  }

  #identityOf(remote: IpAddress): number {
    const prefixLen = IPCACHE_EXACT_BITS + (remote.family === 4 ? 32 : 128);
    const key = ipcacheKey.encode({ prefixLen, family: remote.family, address: encodeAddress(remote) });
    const value = this.#ipcache.lookup(key);
    return value === undefined ? reservedIdentity.world : ipcacheValue.decode(value).identity;
  }
}

function mustOpen(path: string): BpfMap {
  const map = BpfMap.openPinned(path);
  if (map === undefined) throw new Error(`nothing is pinned at ${path}`);
  return map;
}
