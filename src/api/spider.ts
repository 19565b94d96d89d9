/** The group, keys and texts that Spiderpool's users, manifests and scripts know. Kept as they are (docs/decisions/0001). */

export const spiderGroup = 'spiderpool.spidernet.io';
export const spiderVersion = 'v2beta1';
export const spiderApiVersion = `${spiderGroup}/${spiderVersion}`;

/** On pools: the object stays until its last address is returned; likewise subnets (pools), endpoints (addresses). */
export const spiderFinalizer = 'spiderpool.spidernet.io';

export const spiderAnnotations = {
  /** Pod: `{"ipv4":[…],"ipv6":[…]}`. */
  ippool: 'ipam.spidernet.io/ippool',
  /** Pod: `[{"interface":"eth0","ipv4":[…],"ipv6":[…],"cleangateway":false}, …]`. */
  ippools: 'ipam.spidernet.io/ippools',
  /** Pod: `[{"dst":"10.0.0.0/16","gw":"192.168.1.1"}]`. */
  routes: 'ipam.spidernet.io/routes',
  /** Pod: `{"ipv4":["subnet"],"ipv6":["subnet"]}`: a pool is made for the pod's application. */
  subnet: 'ipam.spidernet.io/subnet',
  /** Pod: `[{"interface":"eth0","ipv4":["subnet"],"ipv6":["subnet"]}, …]`. */
  subnets: 'ipam.spidernet.io/subnets',
  /** Pod: size of that pool, `5` addresses or `+1`: so many more than replicas. */
  poolIpNumber: 'ipam.spidernet.io/ippool-ip-number',
  /** Pod: "false" keeps that pool when the application is gone. Also a label of the pool. */
  poolReclaim: 'ipam.spidernet.io/ippool-reclaim',
  /** Pod: the interface that keeps the default route. */
  defaultRouteNic: 'ipam.spidernet.io/default-route-nic',
  /** Namespace: a JSON array of names, in a string. */
  defaultIpv4Pool: 'ipam.spidernet.io/default-ipv4-ippool',
  defaultIpv6Pool: 'ipam.spidernet.io/default-ipv6-ippool',
  /** SpiderMultusConfig: the name of the generated attachment, its CNI version, its CNI network name. */
  crName: 'multus.spidernet.io/cr-name',
  cniVersion: 'multus.spidernet.io/cni-version',
  cniConfigName: 'cni.spidernet.io/cniconfig-name',
  rdmaInject: 'cni.spidernet.io/rdma-resource-inject',
  networkInject: 'cni.spidernet.io/network-resource-inject',
} as const;

export const spiderLabels = {
  /** The subnet, with "-" for ".", ":" and "/". */
  poolCidr: 'ipam.spidernet.io/ippool-cidr',
  subnetCidr: 'ipam.spidernet.io/subnet-cidr',
  ownerSubnet: 'ipam.spidernet.io/owner-spider-subnet',
  /** On pools made for an application. */
  ownerGroupVersion: 'ipam.spidernet.io/owner-application-gv',
  ownerKind: 'ipam.spidernet.io/owner-application-kind',
  ownerNamespace: 'ipam.spidernet.io/owner-application-namespace',
  ownerName: 'ipam.spidernet.io/owner-application-name',
  ownerUid: 'ipam.spidernet.io/owner-application-uid',
  interface: 'ipam.spidernet.io/interface',
  ipVersion: 'ipam.spidernet.io/ip-version',
  poolReclaim: 'ipam.spidernet.io/ippool-reclaim',
} as const;

/** Keys in `spec.podAffinity` of pools made for an application. They name it; they are not labels of its pods. */
export const applicationAffinityKeys = {
  apiGroup: 'ipam.spidernet.io/app-api-group',
  apiVersion: 'ipam.spidernet.io/app-api-version',
  kind: 'ipam.spidernet.io/app-kind',
  namespace: 'ipam.spidernet.io/app-namespace',
  name: 'ipam.spidernet.io/app-name',
} as const;

export const multusAnnotations = {
  defaultNetwork: 'v1.multus-cni.io/default-network',
  networks: 'k8s.v1.cni.cncf.io/networks',
  networkStatus: 'k8s.v1.cni.cncf.io/network-status',
  resourceName: 'k8s.v1.cni.cncf.io/resourceName',
} as const;

/** Error texts that people search their logs for. */
export const spiderErrors = {
  wrongInput: 'wrong input',
  noPool: 'no IPPool available',
  exhausted: 'all IP addresses used out',
  retries: 'exhaust all retries',
} as const;
