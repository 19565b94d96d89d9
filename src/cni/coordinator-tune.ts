/**
 * `tunePodRoutes`: a pod with several interfaces answers by the one it was asked on. One interface keeps the main table and the
 * default route; what comes from the other's addresses is routed by a table of its own, which its routes move to. Pure.
 */
import { formatIp, type IpAddress, type IpFamily } from '../core/ip.ts';
import { routeTable, type Route } from '../kernel/netlink/route.ts';

export interface PodNic {
  readonly name: string;
  readonly ifindex: number;
  readonly ips: readonly IpAddress[];
}

export interface TuneInput {
  readonly current: PodNic;
  /** All of the pod's interfaces but the loopback. */
  readonly nics: readonly PodNic[];
  /** Every route of the pod. */
  readonly routes: readonly Route[];
  /** Of the current interface. */
  readonly table: number;
  /** The interface that is to have the default route; undefined: the one that has it. */
  readonly defaultRouteNic: string | undefined;
}

export interface TunePlan {
  readonly rules: readonly { readonly from: IpAddress; readonly table: number }[];
  /** Routes as they are in main, with the table they are copied to. */
  readonly copies: readonly Route[];
  /** Default routes of main that lead elsewhere from now on. */
  readonly removals: readonly Route[];
  /** The interface whose default route is in main afterwards, by family. */
  readonly keeper: Readonly<Partial<Record<IpFamily, string>>>;
  readonly warnings: readonly string[];
}

/** Each family by itself: an interface that has no default route of a family cannot be given that family's. */
export function planTuning(input: TuneInput): TunePlan {
  const plans = ([4, 6] as const).map((family) => planFamily(input, family));
  return {
    rules: plans.flatMap(({ rules }) => rules),
    copies: plans.flatMap(({ copies }) => copies),
    removals: plans.flatMap(({ removals }) => removals),
    keeper: Object.assign({}, ...plans.map(({ keeper }) => keeper)) as TunePlan['keeper'],
    warnings: plans.flatMap(({ warnings }) => warnings),
  };
}

function planFamily(input: TuneInput, family: IpFamily): TunePlan {
  const { current, nics, routes, table, defaultRouteNic } = input;
  const main = routes.filter((route) => route.table === routeTable.main && route.family === family);
  const holderOf = (nic: PodNic): boolean => main.some((route) => isDefault(route) && route.ifindex === nic.ifindex);
  const holder = nics.find((nic) => nic.ifindex !== current.ifindex && holderOf(nic));
  const hasFamily = current.ips.some((ip) => ip.family === family);
  if (!hasFamily) return nothing(family, holder);
  if (holder === undefined) return nothing(family, current, `no interface beside ${current.name} has a default route`);
  const isWanted = defaultRouteNic === current.name;
  const moves = isWanted && holderOf(current) ? holder : current;
  const keeper = moves === current ? holder : current;
  const own = main.filter((route) => route.ifindex === moves.ifindex && isWorthMoving(route));
  const missing = isWanted && moves === current ? [`${current.name} has no IPv${family} default route to keep`] : [];
  return {
    rules: moves.ips.filter((ip) => ip.family === family).map((from) => ({ from, table })),
    copies: own.map((route) => ({ ...route, table })),
    removals: own.filter(isDefault),
    keeper: { [family]: keeper.name },
    warnings: missing,
  };
}

function nothing(family: IpFamily, keeper: PodNic | undefined, warning?: string): TunePlan {
  const kept = keeper === undefined ? {} : { [family]: keeper.name };
  return { rules: [], copies: [], removals: [], keeper: kept, warnings: warning === undefined ? [] : [warning] };
}

export function isDefault({ dst }: Pick<Route, 'dst'>): boolean {
  return dst === undefined || dst.prefixLen === 0;
}

const RTN_UNICAST = 1;

/** Link-local routes are each interface's own business. */
function isWorthMoving({ dst, type }: Route): boolean {
  return type === RTN_UNICAST && (dst === undefined || !formatIp(dst.address).startsWith('fe80:'));
}
