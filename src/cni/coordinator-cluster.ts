/**
 * What the cluster says about the coordinator: the SpiderCoordinator and the pod's own annotations, as the agent answers
 * `GET /v1/coordinator/config` (Spiderpool's api/v1/agent/openapi.yaml, CoordinatorConfig). Pure.
 */
import { cniErrorCodes } from '../api/cni.ts';
import type { SpiderCoordinator } from '../api/spidercoordinator.ts';
import { CniError } from './error.ts';

/** The wire format. The four lists and flags without "?" are always there. */
export interface ClusterCoordinatorConfig {
  readonly mode: string;
  readonly overlayPodCIDR: readonly string[];
  readonly serviceCIDR: readonly string[];
  readonly hijackCIDR?: readonly string[];
  readonly policyRoutes?: readonly { readonly dst: string; readonly gw: string }[];
  readonly podMACPrefix?: string;
  readonly tunePodRoutes: boolean;
  readonly podDefaultRouteNIC?: string;
  readonly hostRuleTable?: number;
  readonly podRPFilter?: number;
  readonly txQueueLen?: number;
  readonly vethLinkAddress?: string;
  readonly vethMTU?: number;
}

export const defaultRouteNicAnnotation = 'ipam.spidernet.io/default-route-nic';

/**
 * Of the first SpiderCoordinator; the annotation beats its podDefaultRouteNIC. Throws CniError 11 while its CIDRs are not known
 * yet. A cluster without one has the defaults.
 */
export function clusterCoordinatorConfig(
  coordinator: SpiderCoordinator | undefined,
  podAnnotations: Readonly<Record<string, string>> | undefined,
): ClusterCoordinatorConfig {
  const { spec, status } = coordinator ?? {};
  if (coordinator !== undefined && status?.phase !== 'Synced') throw notReady(coordinator);
  const defaultRouteNic = podAnnotations?.[defaultRouteNicAnnotation]?.trim() || spec?.podDefaultRouteNIC;
  return {
    mode: spec?.mode ?? 'auto',
    overlayPodCIDR: status?.overlayPodCIDR ?? [],
    serviceCIDR: status?.serviceCIDR ?? [],
    ...present('hijackCIDR', spec?.hijackCIDR),
    ...present('policyRoutes', spec?.policyRoutes),
    ...present('podMACPrefix', spec?.podMACPrefix),
    tunePodRoutes: spec?.tunePodRoutes ?? true,
    ...present('podDefaultRouteNIC', defaultRouteNic),
    ...present('hostRuleTable', spec?.hostRuleTable),
    ...present('podRPFilter', spec?.podRPFilter),
    ...present('txQueueLen', spec?.txQueueLen),
    ...present('vethLinkAddress', spec?.vethLinkAddress),
    ...present('vethMTU', spec?.vethMTU),
  };
}

/** The text is upstream's, grammar included. */
function notReady({ metadata, status }: SpiderCoordinator): CniError {
  const name = metadata?.name ?? 'default';
  const reason = status?.reason || 'its status says nothing yet: does the controller run?';
  return new CniError(
    cniErrorCodes.tryAgainLater,
    `spidercoordinator: ${name} no ready`,
    `${reason}; set spec.podCIDRType of SpiderCoordinator ${name}, to "none" if no CIDR need be known`,
  );
}

function present<K extends string, T>(key: K, value: T | null | undefined): { [key in K]?: T } {
  const isEmpty = value === undefined || value === null || value === '' || (Array.isArray(value) && value.length === 0);
  return (isEmpty ? {} : { [key]: value }) as { [key in K]?: T };
}
