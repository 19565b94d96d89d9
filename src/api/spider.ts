/** The group, keys and texts that Spiderpool's users, manifests and scripts know. Kept as they are (docs/decisions/0001). */

export const spiderGroup = 'spiderpool.spidernet.io';
export const spiderVersion = 'v2beta1';
export const spiderApiVersion = `${spiderGroup}/${spiderVersion}`;

/** On pools: the object stays until its last address is returned. */
export const spiderFinalizer = 'spiderpool.spidernet.io';

export const spiderAnnotations = {
  /** Pod: `{"ipv4":[…],"ipv6":[…]}`. */
  ippool: 'ipam.spidernet.io/ippool',
  /** Pod: `[{"interface":"eth0","ipv4":[…],"ipv6":[…],"cleangateway":false}, …]`. */
  ippools: 'ipam.spidernet.io/ippools',
  /** Pod: `[{"dst":"10.0.0.0/16","gw":"192.168.1.1"}]`. */
  routes: 'ipam.spidernet.io/routes',
  subnet: 'ipam.spidernet.io/subnet',
  subnets: 'ipam.spidernet.io/subnets',
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
  poolCidr: 'ipam.spidernet.io/ippool-cidr',
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
