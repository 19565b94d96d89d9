import type { CniIp, CniRequest, CniResult, CniRoute } from '../api/cni.ts';
import { addressText } from '../ipam/endpoint-record.ts';
import type { InterfaceAddresses } from './ipam-add.ts';
import type { PoolAllocation } from './ipam-allocate.ts';

/** What the main plugin is told: addresses with the length of their subnet, the default route, the pools' routes. */

export function ipamResult(request: CniRequest, added: InterfaceAddresses): CniResult {
  return {
    cniVersion: request.config.cniVersion,
    interfaces: [],
    ips: added.allocations.map(address),
    routes: routesOf(added),
    dns: {},
  };
}

/** The default routes, those of the pools, those of the pod's annotation. */
export function routesOf({ allocations, cleanGateway, routes }: InterfaceAddresses): CniRoute[] {
  const defaults = cleanGateway ? [] : allocations.flatMap(defaultRoute);
  const ofPools = allocations.flatMap(({ pool }) => (pool.spec.routes ?? []).map(({ dst, gw }) => ({ dst, gw })));
  return [...defaults, ...ofPools, ...routes];
}

function address({ address: ip, pool }: PoolAllocation): CniIp {
  const text = addressText(ip, pool);
  return pool.spec.gateway ? { address: text, gateway: pool.spec.gateway } : { address: text };
}

function defaultRoute({ address: ip, pool }: PoolAllocation): CniRoute[] {
  const { gateway } = pool.spec;
  return gateway ? [{ dst: ip.family === 4 ? '0.0.0.0/0' : '::/0', gw: gateway }] : [];
}
