/**
 * The `default-route` element of a network selection: the pod's default route leads through that network, and those of the
 * others go. In one thing not as Multus: a family that nobody asked for is left alone.
 */
import type { CniResult, CniRoute } from '../../api/cni.ts';
import { parseIp, type IpAddress, type IpFamily } from '../../core/ip.ts';
import { routeTable, type Route } from '../../kernel/netlink/route.ts';
import { RtNetlink } from '../../kernel/netlink/rtnetlink.ts';
import { isDefault } from './network-status.ts';
import type { NetworkRecord } from './pod-record.ts';

/** Changes the pod's main routing table, and the results that are kept. Does nothing when no network asks for it. */
export function applyDefaultRoutes(netns: string, networks: readonly NetworkRecord[]): NetworkRecord[] {
  const choices = networks.flatMap(choicesOf);
  if (choices.length === 0) return [...networks];
  using rt = RtNetlink.open(netns);
  return networks.map((network) => {
    const { ifindex } = rt.mustLink(network.interface);
    for (const { family, by, gateways } of choices) {
      const isChosen = by === network;
      if (isChosen && gateways.length === 0) continue;
      for (const route of rt.routes().filter((each) => isMainDefault(each, family, ifindex))) remove(rt, route);
      if (!isChosen) continue;
      for (const gateway of gateways) rt.replaceRoute({ family, gateway, ifindex });
    }
    return { ...network, result: changedResult(network, choices) };
  });
}

interface Choice {
  readonly family: IpFamily;
  readonly by: NetworkRecord;
  /** Empty: the routes that the network's own plugins made. */
  readonly gateways: readonly IpAddress[];
}

function choicesOf(network: NetworkRecord): Choice[] {
  if (network.defaultRoute === undefined) return [];
  const gateways = network.defaultRoute.map(parseIp).filter((gateway) => gateway !== undefined);
  const own = routesOf(network).filter(isDefault).map(familyOf);
  return ([4, 6] as const).flatMap((family) => {
    const ofFamily = gateways.filter((gateway) => gateway.family === family);
    const isChosen = ofFamily.length > 0 || (gateways.length === 0 && own.includes(family));
    return isChosen ? [{ family, by: network, gateways: ofFamily }] : [];
  });
}

function routesOf({ result }: NetworkRecord): readonly CniRoute[] {
  return (result as Partial<CniResult> | undefined)?.routes ?? [];
}

function familyOf({ dst }: CniRoute): IpFamily {
  return dst.includes(':') ? 6 : 4;
}

function isMainDefault(route: Route, family: IpFamily, ifindex: number): boolean {
  return route.table === routeTable.main && isForAll(route) && route.family === family && route.ifindex === ifindex;
}

function isForAll({ dst }: Route): boolean {
  return dst === undefined || dst.prefixLen === 0;
}

function remove(rt: RtNetlink, { family, gateway, ifindex, metric }: Route): void {
  rt.deleteRoute({
    family,
    ...(gateway === undefined ? {} : { gateway }),
    ...(ifindex === undefined ? {} : { ifindex }),
    ...(metric === undefined ? {} : { metric }),
  });
}

function changedResult(network: NetworkRecord, choices: readonly Choice[]): unknown {
  const { result } = network;
  if (typeof result !== 'object' || result === null) return result;
  const kept = routesOf(network).filter((route) => {
    const choice = choices.find(({ family }) => family === familyOf(route));
    return !isDefault(route) || choice === undefined || (choice.by === network && choice.gateways.length === 0);
  });
  const added = choices
    .filter(({ by }) => by === network)
    .flatMap(({ family }) =>
      (network.defaultRoute ?? [])
        .filter((gw) => parseIp(gw)?.family === family)
        .map((gw) => ({ dst: family === 4 ? '0.0.0.0/0' : '::/0', gw })),
    );
  return { ...result, routes: [...kept, ...added] };
}
