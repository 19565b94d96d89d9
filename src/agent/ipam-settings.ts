/** What the settings mean to the address plugin. */
import type { IpamKubeOptions } from '../cni/ipam-kube.ts';
import { disabledFamilies, type Settings } from '../ipam/settings.ts';

export type IpamSettings = Pick<
  IpamKubeOptions,
  'families' | 'staticKinds' | 'maxRecordsPerPool' | 'autoPools' | 'autoPoolWaitMs'
>;

export function ipamSettings(settings: Settings): IpamSettings {
  const off = disabledFamilies(settings);
  return {
    families: ([4, 6] as const).filter((family) => !off.includes(family)),
    staticKinds: { statefulSets: settings.enableStatefulSet, virtualMachines: settings.enableKubevirtStaticIP },
    maxRecordsPerPool: settings.maxRecordsPerPool,
    autoPools: settings.enableSpiderSubnet && settings.enableAutoPoolForApplication,
    autoPoolWaitMs: settings.waitPoolStepS * settings.waitPoolSteps * 1000,
  };
}
