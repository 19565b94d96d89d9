import type { Pod } from '../api/kubernetes.ts';
import { spiderAnnotations } from '../api/spider.ts';

const { subnet, subnets, poolIpNumber, poolReclaim } = spiderAnnotations;

/** All that the controller keeps of a pod: there may be tens of thousands. */
export function podCopy({ metadata, spec, status }: Pod): Pod {
  const { namespace, name, uid, resourceVersion, deletionTimestamp, deletionGracePeriodSeconds } = metadata ?? {};
  const ends = (status?.containerStatuses ?? []).filter(({ state }) => state?.terminated !== undefined);
  return {
    metadata: {
      ...{ namespace, name, uid, resourceVersion, deletionTimestamp, deletionGracePeriodSeconds },
      ...(spec?.hostNetwork === true ? {} : ofApplication(metadata)),
    },
    spec: {
      restartPolicy: spec?.restartPolicy,
      terminationGracePeriodSeconds: spec?.terminationGracePeriodSeconds,
      containers: [],
    },
    status: { phase: status?.phase, reason: status?.reason, podIPs: status?.podIPs, containerStatuses: ends },
  };
}

/** What a pod that asks for a pool of its application says of both. */
function ofApplication(metadata: Pod['metadata']): Pod['metadata'] {
  const { annotations = {}, ownerReferences, creationTimestamp } = metadata ?? {};
  if (annotations[subnet] === undefined && annotations[subnets] === undefined) return {};
  const kept = [subnet, subnets, poolIpNumber, poolReclaim].flatMap((key) => {
    const value = annotations[key];
    return value === undefined ? [] : [[key, value] as const];
  });
  return { annotations: Object.fromEntries(kept), ownerReferences, creationTimestamp };
}
