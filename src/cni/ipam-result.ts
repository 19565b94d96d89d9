import type { CniIp, CniRequest, CniResult, CniRoute } from '../api/cni.ts';
import { formatIp, parsePrefix } from '../core/ip.ts';
import type { PoolAllocation } from './ipam-allocate.ts';

/** What the main plugin is told: addresses with the length of their subnet, the default route, the pools' routes. */

export type ExtraRoute = CniRoute;

export function ipamResult(
  request: CniRequest,
  allocations: readonly PoolAllocation[],
  options: { readonly cleanGateway: boolean; readonly routes: readonly ExtraRoute[] },
): CniResult {
  const defaults = options.cleanGateway ? [] : allocations.flatMap(defaultRoute);
  const ofPools = allocations.flatMap(({ pool }) => (pool.spec.routes ?? []).map(({ dst, gw }) => ({ dst, gw })));
  return {
    cniVersion: request.config.cniVersion,
    interfaces: [],
    ips: allocations.map(address),
    routes: [...defaults, ...ofPools, ...options.routes],
    dns: {},
  };
}

function address({ address: ip, pool }: PoolAllocation): CniIp {
  const prefixLen = parsePrefix(pool.spec.subnet)?.prefixLen ?? (ip.family === 4 ? 32 : 128);
  const text = `${formatIp(ip)}/${prefixLen}`;
  return pool.spec.gateway ? { address: text, gateway: pool.spec.gateway } : { address: text };
}

function defaultRoute({ address: ip, pool }: PoolAllocation): CniRoute[] {
  const { gateway } = pool.spec;
  return gateway ? [{ dst: ip.family === 4 ? '0.0.0.0/0' : '::/0', gw: gateway }] : [];
}
