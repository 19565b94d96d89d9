/** The agent's limits, by name; docs/reference/agent.md lists them. */
export const agentLimits = {
  /** Bytes of one CNI request: the shim's 4 MiB of configuration and 64 KiB of environment. */
  cniRequestBytes: (4 << 20) + (64 << 10),
  /** A client has this long to send its request. */
  cniRequestReadMs: 10_000,
  /** Operations that run at once; the rest wait their turn. */
  cniConcurrency: 32,
  /** Operations that may wait; beyond, the answer is "try again". A node runs some hundred pods. */
  cniQueue: 1_024,
  /** An operation is given up after this; the shim waits 90 s. */
  cniOperationMs: 80_000,
  /** How long ADD waits for the first list of every informer after the agent started. */
  informerSyncMs: 15_000,
  /** Running operations may finish within this when the agent is asked to stop. */
  stopGraceMs: 20_000,
  /** Pause between two policy runs; events in between are answered by one run. */
  policyMinIntervalMs: 2,
  /** Without any event, everything is compared with the kernel again. */
  policyMaxIntervalMs: 60_000,
  /** Hooks and namespaces of every endpoint get a cheap look this often: how long a removed hook may stay removed. */
  hookCheckMs: 1_000,
  /** Pause after a change of qdiscs or filters that the kernel told of: a pod that makes many must not keep the agent busy. */
  hookReactionPauseMs: 20,
  /** Limited endpoints whose qdiscs get that look too, in turns: about a millisecond each. */
  limitsPerSweep: 20,
  /** Everything of every endpoint is inspected this often, limits and policy included. */
  endpointCheckMs: 10_000,
  /** How full the maps are is looked at this often. */
  mapCheckMs: 60_000,
  /** Pods without a record are looked for this often. */
  adoptionCheckMs: 5_000,
  /** The tree of cgroups is searched for those of pods at most this often, besides for each new pod; and so deep. */
  cgroupSearchMs: 10_000,
  cgroupDepth: 8,
  /** Records of running pods are compared with what the pods have this often. */
  staleRecordCheckMs: 60_000,
  /** Longest pause between two tries to adopt the same pod. */
  adoptionMaxPauseMs: 300_000,
  /** Distinct label sets, port lists and names that pods share in memory; beyond it they are collected anew. */
  sharedValues: 65_536,
  /** Endpoints of one node. */
  endpoints: 4_095,
  /** Endpoints whose programs are loaded before there is a pod for them. */
  preparedEndpoints: 8,
  /** How long no ADD must have come before more are loaded. */
  preparePauseMs: 25,
  /** The kernel's events are fetched this often, more often while somebody follows them, and at most so many at once. */
  eventPollMs: 500,
  followedEventPollMs: 100,
  eventsPerPoll: 8_192,
  /** The last drops and audit events that the agent can tell of. */
  dropsKept: 4_096,
  /** Readers that follow drops at once; events that may wait for a slow one; how often each gets a sign of life. */
  dropFollowers: 16,
  dropQueue: 1_024,
  dropHeartbeatMs: 10_000,
  /** How long the names of rules of a deleted policy are kept, for events that still carry them. */
  ruleNameRetentionMs: 3_600_000,
  /** A problem of a policy that lasts is told again after this. */
  diagnosticRepeatMs: 1_800_000,
  /** How old the table of who has an address may be when it is asked while the cluster changes. */
  addressBookMs: 2_000,
  /** Connections that a preview looks at. */
  previewConnections: 65_536,
  /** Longest time that rates are measured for one request. */
  bandwidthSampleMs: 60_000,
  /** Bytes of a request to the agent's API: some hundred policies. */
  apiRequestBytes: 4 << 20,
} as const;

/** `underlay`: interfaces that hang on a NIC (ipvlan, macvlan, VLAN, VF); `all`: also veth, which another CNI may police. */
export const adoptionModes = ['none', 'underlay', 'all'] as const;
export type AdoptionMode = (typeof adoptionModes)[number];
