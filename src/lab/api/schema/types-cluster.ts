/** core/v1 kinds other than Pod, discovery, networking, coordination and events. */
export const clusterTypes = `
Namespace: apiVersion=s kind=s metadata=ObjectMeta#1 spec=NamespaceSpec#2 status=NamespaceStatus#3
NamespaceSpec: finalizers=[s]#1
NamespaceStatus: phase=s#1 conditions=[NamespaceCondition]@type#2
NamespaceCondition: type*=s#1 status*=s#2 lastTransitionTime=t#4 reason=s#5 message=s#6
Node: apiVersion=s kind=s metadata=ObjectMeta#1 spec=NodeSpec#2 status=NodeStatus#3
NodeSpec: podCIDR=s#1 podCIDRs=[s]@#7 providerID=s#3 unschedulable=b#4 taints=[Taint]#5 configSource=any#6 externalID=s#2
Taint: key*=s#1 value=s#2 effect*=s#3 timeAdded?=t#4
NodeStatus: capacity={q}#1 allocatable={q}#2 phase=s#3 conditions=[NodeCondition]@type#4 addresses=[NodeAddress]@type#5
  daemonEndpoints=NodeDaemonEndpoints#6 nodeInfo=NodeSystemInfo#7 images=[ContainerImage]#8 volumesInUse=[s]#9 volumesAttached=any#10
  config=any#11 runtimeHandlers=any#12 features=any#13
NodeCondition: type*=s#1 status*=s#2 lastHeartbeatTime=t#3 lastTransitionTime=t#4 reason=s#5 message=s#6
NodeAddress: type*=s#1 address*=s#2
NodeDaemonEndpoints: kubeletEndpoint=DaemonEndpoint#1
DaemonEndpoint: Port*=i32#1
NodeSystemInfo: machineID*=s#1 systemUUID*=s#2 bootID*=s#3 kernelVersion*=s#4 osImage*=s#5 containerRuntimeVersion*=s#6 kubeletVersion*=s#7
  kubeProxyVersion*=s#8 operatingSystem*=s#9 architecture*=s#10
ContainerImage: names=[s]#1 sizeBytes=i64#2
Service: apiVersion=s kind=s metadata=ObjectMeta#1 spec=ServiceSpec#2 status=ServiceStatus#3
ServiceSpec: ports=[ServicePort]@port#1 selector={s}#2 clusterIP=s#3 clusterIPs=[s]#18 type=s#4 externalIPs=[s]#5 sessionAffinity=s#7
  loadBalancerIP=s#8 loadBalancerSourceRanges=[s]#9 externalName=s#10 externalTrafficPolicy=s#11 healthCheckNodePort=i32#12
  publishNotReadyAddresses=b#13 sessionAffinityConfig=SessionAffinityConfig#14 ipFamilies=[s]#19 ipFamilyPolicy?=s#17
  allocateLoadBalancerNodePorts?=b#20 loadBalancerClass?=s#21 internalTrafficPolicy?=s#22 trafficDistribution?=s#23
ServicePort: name=s#1 protocol=s#2 appProtocol?=s#6 port*=i32#3 targetPort=is#4 nodePort=i32#5
SessionAffinityConfig: clientIP=ClientIPConfig#1
ClientIPConfig: timeoutSeconds?=i32#1
ServiceStatus: loadBalancer=LoadBalancerStatus#1 conditions=[Condition]@type#2
LoadBalancerStatus: ingress=[LoadBalancerIngress]#1
LoadBalancerIngress: ip=s#1 hostname=s#2 ipMode?=s#3 ports=[PortStatus]#4
PortStatus: port*=i32#1 protocol*=s#2 error?=s#3
Endpoints: apiVersion=s kind=s metadata=ObjectMeta#1 subsets=[EndpointSubset]#2
EndpointSubset: addresses=[EndpointAddress]#1 notReadyAddresses=[EndpointAddress]#2 ports=[CoreEndpointPort]#3
EndpointAddress: ip*=s#1 hostname=s#3 nodeName?=s#4 targetRef=ObjectReference#2
CoreEndpointPort: name=s#1 port*=i32#2 protocol=s#3 appProtocol?=s#4
EndpointSlice: apiVersion=s kind=s metadata=ObjectMeta#1 addressType*=s#4 endpoints*=[Endpoint]#2 ports=[EndpointPort]#3
Endpoint: addresses*=[s]#1 conditions=EndpointConditions#2 hostname?=s#3 targetRef=ObjectReference#4 deprecatedTopology={s}#5 nodeName?=s#6
  zone?=s#7 hints=EndpointHints#8
EndpointConditions: ready?=b#1 serving?=b#2 terminating?=b#3
EndpointHints: forZones=[ForZone]#1
ForZone: name*=s#1
EndpointPort: name?=s#1 protocol?=s#2 port?=i32#3 appProtocol?=s#4
ConfigMap: apiVersion=s kind=s metadata=ObjectMeta#1 immutable?=b#4 data={s}#2 binaryData={bytes}#3
Secret: apiVersion=s kind=s metadata=ObjectMeta#1 immutable?=b#5 data={bytes}#2 stringData={s}#4 type=s#3
ServiceAccount: apiVersion=s kind=s metadata=ObjectMeta#1 secrets=[ObjectReference]@name#2
  imagePullSecrets=[LocalObjectReference]#3 automountServiceAccountToken?=b#4
Event: apiVersion=s kind=s metadata*=ObjectMeta#1 involvedObject*=ObjectReference#2 reason=s#3 message=s#4 source=EventSource#5
  firstTimestamp=t#6 lastTimestamp=t#7 count=i32#8 type=s#9 eventTime=mt#10 series=EventSeries#11 action=s#12 related=ObjectReference#13
  reportingComponent=s#14 reportingInstance=s#15
EventSource: component=s#1 host=s#2
EventSeries: count=i32#1 lastObservedTime=mt#2
EventsV1Event: apiVersion=s kind=s metadata=ObjectMeta#1 eventTime*=mt#2 series=EventsV1EventSeries#3 reportingController=s#4
  reportingInstance=s#5 action=s#6 reason=s#7 regarding=ObjectReference#8 related=ObjectReference#9 note=s#10 type=s#11
  deprecatedSource=EventSource#12 deprecatedFirstTimestamp=t#13 deprecatedLastTimestamp=t#14 deprecatedCount=i32#15
EventsV1EventSeries: count*=i32#1 lastObservedTime*=mt#2
Lease: apiVersion=s kind=s metadata=ObjectMeta#1 spec=LeaseSpec#2
LeaseSpec: holderIdentity?=s#1 leaseDurationSeconds?=i32#2 acquireTime?=mt#3 renewTime?=mt#4 leaseTransitions?=i32#5 strategy?=s#6
  preferredHolder?=s#7
NetworkPolicy: apiVersion=s kind=s metadata=ObjectMeta#1 spec=NetworkPolicySpec#2
NetworkPolicySpec: podSelector*=LabelSelector#1 ingress=[NetworkPolicyIngressRule]#2 egress=[NetworkPolicyEgressRule]#3
  policyTypes=[s]#4
NetworkPolicyIngressRule: ports=[NetworkPolicyPort]#1 from=[NetworkPolicyPeer]#2
NetworkPolicyEgressRule: ports=[NetworkPolicyPort]#1 to=[NetworkPolicyPeer]#2
NetworkPolicyPort: protocol?=s#1 port?=is#2 endPort?=i32#3
NetworkPolicyPeer: podSelector=LabelSelector#1 namespaceSelector=LabelSelector#2 ipBlock=IPBlock#3
IPBlock: cidr*=s#1 except=[s]#2
`;
