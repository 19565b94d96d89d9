/** Types that every kind uses: metadata, selectors, references, conditions. */
export const metaTypes = `
ObjectMeta: name=s#1 generateName=s#2 namespace=s#3 selfLink=s#4 uid=s#5 resourceVersion=s#6 generation=i64#7 creationTimestamp=t#8
  deletionTimestamp?=t#9 deletionGracePeriodSeconds?=i64#10 labels={s}#11 annotations={s}#12 ownerReferences=[OwnerReference]@uid#13
  finalizers=[s]@#14 managedFields=[ManagedFieldsEntry]#17
ListMeta: selfLink=s#1 resourceVersion=s#2 continue=s#3 remainingItemCount?=i64#4
OwnerReference: apiVersion*=s#5 kind*=s#1 name*=s#3 uid*=s#4 controller?=b#6 blockOwnerDeletion?=b#7
ManagedFieldsEntry: manager=s#1 operation=s#2 apiVersion=s#3 time?=t#4 fieldsType=s#6 fieldsV1=any#7 subresource=s#8
LabelSelector: matchLabels={s}#1 matchExpressions=[LabelSelectorRequirement]#2
LabelSelectorRequirement: key*=s#1 operator*=s#2 values=[s]#3
Condition: type*=s#1 status*=s#2 observedGeneration=i64#3 lastTransitionTime*=t#4 reason*=s#5 message*=s#6
DeleteOptions: kind=s apiVersion=s gracePeriodSeconds?=i64#1 preconditions=Preconditions#2 orphanDependents?=b#3 propagationPolicy?=s#4
  dryRun=[s]#5 ignoreStoreReadErrorWithClusterBreakingPotential?=b#6
Preconditions: uid?=s#1 resourceVersion?=s#2
LocalObjectReference: name=s#1
ObjectReference: kind=s#1 namespace=s#2 name=s#3 uid=s#4 apiVersion=s#5 resourceVersion=s#6 fieldPath=s#7
TypedLocalObjectReference: apiGroup?=s#1 kind*=s#2 name*=s#3
TypedObjectReference: apiGroup?=s#1 kind*=s#2 name*=s#3 namespace?=s#4
`;
