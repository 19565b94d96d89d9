/** apps/v1, autoscaling/v1 Scale, access control and admission registration. */
export const appsTypes = `
Deployment: apiVersion=s kind=s metadata=ObjectMeta#1 spec=DeploymentSpec#2 status=DeploymentStatus#3
DeploymentSpec: replicas?=i32#1 selector*=LabelSelector#2 template*=PodTemplateSpec#3 strategy=DeploymentStrategy!#4
  minReadySeconds=i32#5 revisionHistoryLimit?=i32#6 paused=b#7 progressDeadlineSeconds?=i32#9
DeploymentStrategy: type=s#1 rollingUpdate=RollingUpdateDeployment#2
RollingUpdateDeployment: maxUnavailable?=is#1 maxSurge?=is#2
DeploymentStatus: observedGeneration=i64#1 replicas=i32#2 updatedReplicas=i32#3 readyReplicas=i32#7 availableReplicas=i32#4
  unavailableReplicas=i32#5 conditions=[DeploymentCondition]@type#6 collisionCount?=i32#8
DeploymentCondition: type*=s#1 status*=s#2 lastUpdateTime=t#6 lastTransitionTime=t#7 reason=s#4 message=s#5
ReplicaSet: apiVersion=s kind=s metadata=ObjectMeta#1 spec=ReplicaSetSpec#2 status=ReplicaSetStatus#3
ReplicaSetSpec: replicas?=i32#1 minReadySeconds=i32#4 selector*=LabelSelector#2 template=PodTemplateSpec#3
ReplicaSetStatus: replicas*=i32#1 fullyLabeledReplicas=i32#2 readyReplicas=i32#4 availableReplicas=i32#5 observedGeneration=i64#3
  conditions=[ReplicaSetCondition]@type#6
ReplicaSetCondition: type*=s#1 status*=s#2 lastTransitionTime=t#3 reason=s#4 message=s#5
StatefulSet: apiVersion=s kind=s metadata=ObjectMeta#1 spec=StatefulSetSpec#2 status=StatefulSetStatus#3
StatefulSetSpec: replicas?=i32#1 selector*=LabelSelector#2 template*=PodTemplateSpec#3 volumeClaimTemplates=[PersistentVolumeClaim]#4
  serviceName*=s#5 podManagementPolicy=s#6 updateStrategy=StatefulSetUpdateStrategy#7 revisionHistoryLimit?=i32#8 minReadySeconds=i32#9
  persistentVolumeClaimRetentionPolicy=StatefulSetPersistentVolumeClaimRetentionPolicy#10 ordinals=StatefulSetOrdinals#11
StatefulSetUpdateStrategy: type=s#1 rollingUpdate=RollingUpdateStatefulSetStrategy#2
RollingUpdateStatefulSetStrategy: partition?=i32#1 maxUnavailable?=is#2
StatefulSetPersistentVolumeClaimRetentionPolicy: whenDeleted=s#1 whenScaled=s#2
StatefulSetOrdinals: start=i32#1
StatefulSetStatus: observedGeneration=i64#1 replicas*=i32#2 readyReplicas=i32#3 currentReplicas=i32#4 updatedReplicas=i32#5
  currentRevision=s#6 updateRevision=s#7 collisionCount?=i32#9 conditions=[StatefulSetCondition]@type#10 availableReplicas=i32#11
StatefulSetCondition: type*=s#1 status*=s#2 lastTransitionTime=t#3 reason=s#4 message=s#5
DaemonSet: apiVersion=s kind=s metadata=ObjectMeta#1 spec=DaemonSetSpec#2 status=DaemonSetStatus#3
DaemonSetSpec: selector*=LabelSelector#1 template*=PodTemplateSpec#2 updateStrategy=DaemonSetUpdateStrategy#3 minReadySeconds=i32#4
  revisionHistoryLimit?=i32#6
DaemonSetUpdateStrategy: type=s#1 rollingUpdate=RollingUpdateDaemonSet#2
RollingUpdateDaemonSet: maxUnavailable?=is#1 maxSurge?=is#2
DaemonSetStatus: currentNumberScheduled*=i32#1 numberMisscheduled*=i32#2 desiredNumberScheduled*=i32#3 numberReady*=i32#4
  observedGeneration=i64#5 updatedNumberScheduled=i32#6 numberAvailable=i32#7 numberUnavailable=i32#8 collisionCount?=i32#9
  conditions=[DaemonSetCondition]@type#10
DaemonSetCondition: type*=s#1 status*=s#2 lastTransitionTime=t#3 reason=s#4 message=s#5
ControllerRevision: apiVersion=s kind=s metadata=ObjectMeta#1 data=any#2 revision*=i64#3
Scale: apiVersion=s kind=s metadata=ObjectMeta#1 spec=ScaleSpec#2 status=ScaleStatus#3
ScaleSpec: replicas=i32#1
ScaleStatus: replicas*=i32#1 selector=s#2
Role: apiVersion=s kind=s metadata=ObjectMeta#1 rules=[PolicyRule]#2
ClusterRole: apiVersion=s kind=s metadata=ObjectMeta#1 rules=[PolicyRule]#2 aggregationRule=AggregationRule#3
PolicyRule: verbs*=[s]#1 apiGroups=[s]#2 resources=[s]#3 resourceNames=[s]#4 nonResourceURLs=[s]#5
AggregationRule: clusterRoleSelectors=[LabelSelector]#1
RoleBinding: apiVersion=s kind=s metadata=ObjectMeta#1 subjects=[Subject]#2 roleRef*=RoleRef#3
ClusterRoleBinding: apiVersion=s kind=s metadata=ObjectMeta#1 subjects=[Subject]#2 roleRef*=RoleRef#3
Subject: kind*=s#1 apiGroup=s#2 name*=s#3 namespace=s#4
RoleRef: apiGroup*=s#1 kind*=s#2 name*=s#3
SelfSubjectAccessReview: apiVersion=s kind=s metadata=ObjectMeta#1 spec*=SelfSubjectAccessReviewSpec#2 status=any
SelfSubjectAccessReviewSpec: resourceAttributes=ResourceAttributes#1 nonResourceAttributes=NonResourceAttributes#2
ResourceAttributes: namespace=s#1 verb=s#2 group=s#3 version=s#4 resource=s#5 subresource=s#6 name=s#7 fieldSelector=any
  labelSelector=any
NonResourceAttributes: path=s#1 verb=s#2
SelfSubjectRulesReview: apiVersion=s kind=s metadata=ObjectMeta#1 spec*=SelfSubjectRulesReviewSpec#2 status=any
SelfSubjectRulesReviewSpec: namespace=s#1
SelfSubjectReview: apiVersion=s kind=s metadata=ObjectMeta#1 status=any
MutatingWebhookConfiguration: apiVersion=s kind=s metadata=ObjectMeta#1 webhooks=[MutatingWebhook]@name
ValidatingWebhookConfiguration: apiVersion=s kind=s metadata=ObjectMeta#1 webhooks=[ValidatingWebhook]@name
MutatingWebhook: name*=s#1 clientConfig*=WebhookClientConfig#2 rules=[RuleWithOperations]#3 failurePolicy?=s#4 matchPolicy?=s#9
  namespaceSelector=LabelSelector#5 objectSelector=LabelSelector#11 sideEffects*?=s#6 timeoutSeconds?=i32#7
  admissionReviewVersions*=[s]#8 reinvocationPolicy?=s#10 matchConditions=[MatchCondition]@name#12
ValidatingWebhook: name*=s#1 clientConfig*=WebhookClientConfig#2 rules=[RuleWithOperations]#3 failurePolicy?=s#4 matchPolicy?=s#9
  namespaceSelector=LabelSelector#5 objectSelector=LabelSelector#10 sideEffects*?=s#6 timeoutSeconds?=i32#7
  admissionReviewVersions*=[s]#8 matchConditions=[MatchCondition]@name#11
WebhookClientConfig: url?=s#3 service=ServiceReference#1 caBundle=bytes#2
ServiceReference: namespace*=s#1 name*=s#2 path?=s#3 port?=i32#4
RuleWithOperations: operations=[s]#1 apiGroups=[s] apiVersions=[s] resources=[s] scope=s
MatchCondition: name*=s#1 expression*=s#2
CustomResourceDefinition: apiVersion=s kind=s metadata=ObjectMeta#1 spec*=CustomResourceDefinitionSpec#2
  status=CustomResourceDefinitionStatus#3
CustomResourceDefinitionSpec: group*=s#1 names*=CustomResourceDefinitionNames#3 scope*=s#4
  versions*=[CustomResourceDefinitionVersion]#7 conversion=CustomResourceConversion#9 preserveUnknownFields=b#10
CustomResourceDefinitionNames: plural*=s#1 singular=s#2 shortNames=[s]#3 kind*=s#4 listKind=s#5 categories=[s]#6
CustomResourceDefinitionVersion: name*=s#1 served*=b#2 storage*=b#3 deprecated=b#7 deprecationWarning?=s#8
  schema=CustomResourceValidation#4 subresources=CustomResourceSubresources#5
  additionalPrinterColumns=[CustomResourceColumnDefinition]#6 selectableFields=[SelectableField]#9
CustomResourceValidation: openAPIV3Schema=any#1
CustomResourceSubresources: status=any#1 scale=CustomResourceSubresourceScale#2
CustomResourceSubresourceScale: specReplicasPath*=s#1 statusReplicasPath*=s#2 labelSelectorPath?=s#3
CustomResourceColumnDefinition: name*=s#1 type*=s#2 format=s#3 description=s#4 priority=i32#5 jsonPath*=s#6
SelectableField: jsonPath*=s#1
CustomResourceConversion: strategy*=s#1 webhook=any#2
CustomResourceDefinitionStatus: conditions=[CustomResourceDefinitionCondition]#1 acceptedNames=CustomResourceDefinitionNames#2
  storedVersions=[s]#3
CustomResourceDefinitionCondition: type*=s#1 status*=s#2 lastTransitionTime=t#3 reason=s#4 message=s#5
`;
