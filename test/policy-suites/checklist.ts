/**
 * The cases that implementations get wrong (dataplane facts, §5.1), each with the tests that would fail if ours did.
 * docs/reference/network-policy.md says what Sluice does in each, under the same number.
 */

export interface ChecklistRow {
  readonly row: number;
  readonly title: string;
  /** File and the text that names the test in it. */
  readonly proofs: readonly (readonly [file: string, test: string])[];
}

const suites = 'test/policy-suites';
const compiler = 'src/policy/compile.test.ts';
const verdicts = 'src/datapath/verdict.kernel.test.ts';
const e2e = `${suites}/upstream-e2e.ts`;
const cyclonus = `${suites}/cyclonus.ts`;
const mutants = `${suites}/mutants.ts`;
const labRows = `${suites}/lab-rows.ts`;
const kernelRows = `${suites}/rows.kernel.test.ts`;

export const checklist: readonly ChecklistRow[] = [
  {
    row: 1,
    title: 'policyTypes omitted',
    proofs: [
      [compiler, 'without policyTypes and rules: ingress is isolated'],
      [compiler, 'without policyTypes, with egress rules: both'],
      [compiler, 'without policyTypes, with empty egress: ingress only'],
      [mutants, 'without policyTypes egress is always isolated'],
    ],
  },
  {
    row: 2,
    title: 'ingress: [] denies all, ingress: [{}] allows all',
    proofs: [
      [compiler, 'an empty rule allows everyone'],
      [cyclonus, ': deny all'],
      [cyclonus, ': allow all'],
    ],
  },
  {
    row: 3,
    title: 'an empty or absent from is everyone, outside included',
    proofs: [
      [compiler, 'an empty from is no restriction'],
      [cyclonus, ': empty peers'],
      [mutants, 'an empty from is nobody'],
    ],
  },
  {
    row: 4,
    title: 'namespaceSelector {} is every pod, and neither nodes nor the outside',
    proofs: [
      [compiler, 'namespaceSelector {} is every pod, and no address outside'],
      [labRows, 'row 4: every pod of every namespace is no node and nobody outside'],
    ],
  },
  {
    row: 5,
    title: 'two peers are or, two selectors in one peer are and',
    proofs: [
      [e2e, 'PodSelector or NamespaceSelector'],
      [e2e, 'PodSelector and NamespaceSelector'],
      [mutants, 'pod and namespace selectors of one peer are joined by or'],
      [mutants, 'only the first peer of a rule counts'],
    ],
  },
  {
    row: 6,
    title: 'named ports: of the destination, per protocol, per pod',
    proofs: [
      [compiler, 'a name is the endpoint’s for ingress'],
      [compiler, 'a name is each peer’s for egress'],
      [labRows, 'row 6: one port name means another number on each destination'],
      [mutants, 'a named port is resolved on the source'],
      [cyclonus, "a named port that doesn't match its protocol"],
    ],
  },
  {
    row: 7,
    title: 'endPort',
    proofs: [
      [compiler, 'a range becomes port prefixes'],
      ['src/policy/port.test.ts', 'cover exactly the range, once, aligned, with at most 30 blocks'],
      [cyclonus, 'endPort'],
      [mutants, 'endPort is not included in its range'],
    ],
  },
  {
    row: 8,
    title: 'SCTP, and what is not SCTP',
    proofs: [
      [e2e, "not mistake 'protocol: SCTP' for 'protocol: TCP'"],
      [e2e, 'isolate pods that are selected by a policy allowing SCTP'],
      [compiler, 'a port without protocol is TCP'],
      [verdicts, 'SCTP: an INIT is never a reply'],
      [mutants, 'SCTP is taken for TCP'],
    ],
  },
  {
    row: 9,
    title: 'ipBlock with except; rules add up; pods and nodes are addresses too',
    proofs: [
      [e2e, 'an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed'],
      [compiler, 'ipBlock reaches pods and the outside, less its excepts'],
      [labRows, 'rows 9 and 23: an ipBlock lets in who is outside'],
      [mutants, 'except is dropped'],
    ],
  },
  {
    row: 10,
    title: 'established connections are judged again',
    proofs: [
      [verdicts, 'a policy that denies a live connection cuts it in both directions, and it stays cut'],
      [verdicts, 'what was cut stays cut, also when it was half closed'],
      [verdicts, 'a change of identity judges connections again'],
      ['test/no-window.kernel.test.ts', 'a new deny stops a running'],
    ],
  },
  {
    row: 11,
    title: 'return traffic',
    proofs: [
      [verdicts, 'an allowed client connects, is answered, and goes on'],
      [verdicts, 'a policy that comes later cuts no reply of what it allows'],
    ],
  },
  {
    row: 12,
    title: 'host-network pods',
    proofs: [
      [labRows, 'row 12: a host-network pod is never selected, and is its node to everyone else'],
      [labRows, 'rows 12 and 13: the node reaches its own pods whatever the policy'],
    ],
  },
  {
    row: 13,
    title: 'node to local pod',
    proofs: [
      [labRows, 'rows 12 and 13: the node reaches its own pods whatever the policy'],
      [labRows, 'row 13: what the node forwards over veth0 is judged as what it is, not as the node'],
      [kernelRows, 'row 13: the node passes whatever the policy, also when an ipBlock names its address'],
      [verdicts, 'the node reaches the pod whatever the policy, and is answered'],
    ],
  },
  {
    row: 14,
    title: 'a pod to itself',
    proofs: [[labRows, 'row 14: a pod reaches itself although nothing is allowed']],
  },
  {
    row: 15,
    title: 'pods that have ended, addresses used again',
    proofs: [
      [kernelRows, 'row 15: pods that have ended mean nobody'],
      [labRows, 'row 15: who gets the address of a pod that has ended is not that pod'],
      [compiler, 'of two pods belong to the one that stays'],
      [mutants, 'pods that have ended keep their address'],
    ],
  },
  {
    row: 16,
    title: 'from the first instruction of a pod',
    proofs: [
      [
        'test/agent.kernel.test.ts',
        'lets no packet out of a pod that sends from its first instruction under an egress-deny policy',
      ],
      ['src/datapath/socket-guard.kernel.test.ts', 'cannot be made in a guarded pod, and can elsewhere'],
      [labRows, 'row 16: sockets that would send past the hooks are refused in every pod'],
    ],
  },
  {
    row: 17,
    title: 'labels of pods and namespaces change',
    proofs: [
      [e2e, 'ingress access from updated namespace'],
      [e2e, 'ingress access from updated pod'],
      [e2e, 'deny ingress access to updated pod'],
    ],
  },
  {
    row: 18,
    title: 'Services: the backend is judged',
    proofs: [[kernelRows, 'row 18: a policy means backends, not the address of a Service']],
  },
  {
    row: 19,
    title: 'every address of a pod',
    proofs: [
      [kernelRows, 'row 19: every address of a pod means it, in whichever order they stand'],
      [mutants, 'only the primary address of a pod counts'],
    ],
  },
  {
    row: 20,
    title: 'neighbour discovery, ARP, DHCP',
    proofs: [
      [verdicts, 'ARP passes whatever the policy'],
      [verdicts, 'neighbour discovery passes whatever the policy'],
      [verdicts, 'neighbour discovery reaches the link and no further'],
      [verdicts, 'DHCP: a pod may ask and be answered whatever the policy, but not answer'],
      [verdicts, 'DHCPv6: a pod may ask and be answered on the link whatever the policy, but not answer'],
    ],
  },
  {
    row: 21,
    title: 'ICMP: echo is judged, errors about allowed flows pass',
    proofs: [
      [labRows, 'row 21: ping is denied under isolation, allowed by a rule without ports, and not by one with'],
      [verdicts, 'an ICMP error about an allowed connection passes, whoever sends it'],
      [verdicts, 'an ICMP error about nothing we know is judged on its own'],
    ],
  },
  {
    row: 22,
    title: 'fragments, in any order',
    proofs: [
      [verdicts, 'fragments follow the first one'],
      [verdicts, 'fragments of a denied datagram are dropped, even where other ports are open'],
      [
        verdicts,
        'a fragment that comes before the first one passes where some port of its protocol is open to the peer',
      ],
      [verdicts, 'a fragment of a reply may come before the first one, from whom an allowed connection was made with'],
    ],
  },
  {
    row: 23,
    title: 'traffic from outside',
    proofs: [[labRows, 'rows 9 and 23: an ipBlock lets in who is outside, less its excepts']],
  },
  {
    row: 24,
    title: 'pods that ran before',
    proofs: [
      [
        'test/agent-no-window.kernel.test.ts',
        'pods that ran before are adopted without a restart, with no allowed packet lost',
      ],
      ['test/agent.kernel.test.ts', 'applies a policy to a running pod, cuts it, and gives it back'],
    ],
  },
  {
    row: 25,
    title: 'second interfaces',
    proofs: [['src/datapath/datapath.kernel.test.ts', 'a second interface of the endpoint has the same policy']],
  },
];
