/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * What the programs and user space agree on: every map key and value, and every number that crosses the border.
 * src/datapath/abi.ts is the other side; a test compares the two through the BTF of the committed object, so a
 * change here that is not made there fails.
 *
 * Addresses and ports are in network byte order. All other numbers are in host byte order.
 */
#ifndef SLUICE_ABI_H
#define SLUICE_ABI_H

#include <linux/types.h>

/* IPv4 in the first word, the rest 0. */
struct address {
	__be32 word[4];
};
_Static_assert(sizeof(struct address) == 16, "struct address");

/* As policy means it, seen from the endpoint; not the direction of a hook on some device. */
enum direction {
	DIRECTION_INGRESS = 0,
	DIRECTION_EGRESS = 1,
};

enum family {
	FAMILY_IPV4 = 4,
	FAMILY_IPV6 = 6,
};

/* Why a packet was counted. User space shows the names; docs/reference/drop-reasons.md explains them. */
enum reason {
	REASON_FORWARDED = 0,
	DROP_NO_ENDPOINT = 1,
	DROP_NOT_PROGRAMMED = 2,
	DROP_POLICY = 3,
	DROP_NON_IP = 4,
	DROP_TRUNCATED = 5,
	DROP_MALFORMED = 6,
	DROP_EXTENSION_HEADERS = 7,
	DROP_SOURCE_ROUTE = 8,
	DROP_FRAGMENT_UNKNOWN = 9,
	DROP_CONNTRACK_FULL = 10,
	REASON_AUDIT = 11, /* would have been DROP_POLICY; let through */
};

/* Identities with a fixed meaning. 0 never names anyone: in a policy entry it stands for "any". */
enum reserved_identity {
	IDENTITY_ANY = 0,
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
};

/* Rules that are no one's; those of policies begin at 256. */
enum reserved_rule {
	RULE_NONE = 0,
	RULE_HOST = 1, /* Kubernetes itself: the node reaches its pods */
};

enum policy_action {
	ACTION_ALLOW = 1,
};

enum endpoint_flag {
	ENDPOINT_PROGRAMMED = 1,
	ENDPOINT_ISOLATED_INGRESS = 2,
	ENDPOINT_ISOLATED_EGRESS = 4,
	ENDPOINT_AUDIT = 8,    /* what policy would drop is let through and reported */
	ENDPOINT_PRESENT = 16, /* there is such an endpoint */
	ENDPOINT_NODE_MARKED = 32, /* what the node itself sends to it has NODE_TC_INDEX */
};

/* The other bits: the index of the interface whose other end is the node's. A neighbour can write NODE_TC_INDEX too. */
#define ENDPOINT_NODE_IFINDEX_SHIFT 8

/*
 * skb->tc_index of what the node itself sends through its end of the veth pair to the pod; what it forwards has 0. Unlike the
 * mark and the priority, the index is not scrubbed on the way into another network namespace (skb_scrub_packet()).
 */
#define NODE_TC_INDEX 0x51ce

enum conntrack_flag {
	CONNTRACK_REPLIED = 1, /* a packet was seen against the original direction */
	CONNTRACK_FIN_ORIGINAL = 2,
	CONNTRACK_FIN_REPLY = 4,
	CONNTRACK_RST = 8,
	CONNTRACK_AUDITED = 16, /* denied, but let through: its packets count as REASON_AUDIT */
	CONNTRACK_FROM_NODE = 32, /* the packet that opened it had NODE_TC_INDEX */
};

/*
 * endpoints: endpoint id -> struct endpoint, in an array, since a hash lookup costs 31 ns more (measured). User space
 * writes through shared memory and programs read all 8 bytes at once, so policy, isolation and revision change together,
 * in one step: policy_id names a set of entries in the `policy` map that is complete before this points to it, and never
 * changes afterwards. No policy_id is ever used twice, and later ones are larger, so it also serves as the policy revision
 * that conntrack entries are judged under.
 */
struct endpoint {
	__u32 policy_id;
	__u32 flags; /* enum endpoint_flag */
} __attribute__((aligned(8)));
_Static_assert(sizeof(struct endpoint) == 8, "struct endpoint");

/*
 * policy: what an endpoint's policy allows, as a longest-prefix trie. The order of the fields follows from how they
 * match: policy_id, identity and direction are always exact; then comes what may be left open from the end: the
 * port, wholly or to a power-of-two range, and with the whole port also the protocol. "Any identity" can not be a
 * prefix (it would open what follows it), so it is identity 0 and a second lookup.
 *
 * One trie for all endpoints, rather than a trie each inside a hash of maps, since an update of a map in map makes
 * the kernel wait for an RCU grace period (maybe_wait_bpf_programs(), measured 8-16 ms for each update).
 */
struct policy_key {
	__u32 prefix_len; /* POLICY_EXACT_BITS + 0, 8 (protocol) or 8 + 0..16 (port) */
	__u32 policy_id;
	__u32 identity;
	__u8 direction;
	__u8 protocol;
	__be16 port; /* the destination's, whichever the direction */
};
_Static_assert(sizeof(struct policy_key) == 16, "struct policy_key");

/*
 * Added to the direction: says that some port of the protocol is open to the identity, for fragments that arrive before
 * the one that has the ports. User space derives these entries from those with ports.
 */
#define POLICY_ANY_PORT 2

#define POLICY_EXACT_BITS (32 + 32 + 8)
#define POLICY_FULL_BITS (POLICY_EXACT_BITS + 8 + 16)

struct policy_value {
	__u32 rule_id;
	__u8 action;     /* enum policy_action */
	__u8 prefix_len; /* of the key; a lookup does not tell which entry it found */
	__u16 pad;
};
_Static_assert(sizeof(struct policy_value) == 8, "struct policy_value");

/* ipcache: address -> identity. The family is matched exactly, so that ::/0 says nothing about IPv4. */
struct ipcache_key {
	__u32 prefix_len; /* IPCACHE_EXACT_BITS + the length of the address prefix */
	__u8 family;
	__u8 pad[3];
	struct address address;
};
_Static_assert(sizeof(struct ipcache_key) == 24, "struct ipcache_key");

#define IPCACHE_EXACT_BITS 32

struct ipcache_value {
	__u32 identity;
};
_Static_assert(sizeof(struct ipcache_value) == 4, "struct ipcache_value");

/*
 * conntrack: one key for both directions of a connection, because it says "local" and "remote" instead of source
 * and destination. ICMP echo stores the identifier as the port of whoever asks, and 0 as the other port, so that a
 * request is never taken for the answer to a request.
 */
struct conntrack_key {
	__u32 endpoint_id;
	struct address local_address;
	struct address remote_address;
	__be16 local_port;
	__be16 remote_port;
	__u8 family;
	__u8 protocol;
	__u16 pad;
};
_Static_assert(sizeof(struct conntrack_key) == 44, "struct conntrack_key");

struct conntrack_entry {
	__u64 last_seen_ns; /* CLOCK_MONOTONIC; up to CONNTRACK_REFRESH_NS late */
	__u32 revision;     /* policy_id + epoch at the last judgement */
	__u32 rule_id;      /* the entry that allowed it, 0 when no policy applied */
	__u32 identity;     /* of the remote side at the last judgement, 0 when nobody asked */
	__u8 direction;     /* of the packet that opened it */
	__u8 flags;         /* enum conntrack_flag */
	__u16 pad;
};
_Static_assert(sizeof(struct conntrack_entry) == 24, "struct conntrack_entry");

/* fragments: what became of a datagram's first fragment, for the other ones. */
struct fragment_key {
	__u32 endpoint_id;
	struct address source;
	struct address destination;
	__be32 id;
	__u8 family;
	__u8 protocol;
	__u8 direction;
	__u8 pad;
};
_Static_assert(sizeof(struct fragment_key) == 44, "struct fragment_key");

struct fragment_value {
	__be16 source_port;
	__be16 destination_port;
	__u8 kind;     /* enum packet_kind */
	__u8 protocol; /* after all extension headers, which later fragments may not have */
	__u8 denied;   /* the first fragment was dropped */
	__u8 pad;
	__u64 seen_ns; /* CLOCK_MONOTONIC */
};
_Static_assert(sizeof(struct fragment_value) == 16, "struct fragment_value");

/*
 * correspondents: who may be answering an endpoint, because they had an allowed connection lately. For fragments of theirs
 * that arrive before the one that has the ports.
 */
struct correspondent_key {
	__u32 endpoint_id;
	struct address address;
	__u8 family;
	__u8 protocol;
	__u8 direction; /* of the answers; or CORRESPONDENT_NEIGHBOUR (neighbour.h) */
	__u8 pad;
};
_Static_assert(sizeof(struct correspondent_key) == 24, "struct correspondent_key");

struct correspondent {
	__u64 seen_ns;  /* CLOCK_MONOTONIC; up to CONNTRACK_REFRESH_NS late */
	__u32 revision; /* of the connection */
	__u32 pad;
};
_Static_assert(sizeof(struct correspondent) == 16, "struct correspondent");

/* metrics: every reason but REASON_FORWARDED, which is in `forwarded`: an element for each endpoint and direction. */
struct metrics_key {
	__u32 endpoint_id;
	__u16 reason; /* enum reason */
	__u8 direction;
	__u8 pad;
};
_Static_assert(sizeof(struct metrics_key) == 8, "struct metrics_key");

struct metrics_value {
	__u64 packets;
	__u64 bytes;
};
_Static_assert(sizeof(struct metrics_value) == 16, "struct metrics_value");

enum event_kind {
	EVENT_DROP = 0,
	EVENT_AUDIT = 1, /* let through, because the endpoint is in audit mode */
	EVENT_ALLOW = 2, /* a new connection was allowed; only written while CONFIG_EVENT_ALLOW is set */
};

/* events: what is written to the ring buffer. Addresses and ports are those of the packet. */
struct event {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 endpoint_id;
	__u32 rule_id;  /* that decided; RULE_NONE when none did */
	__u32 identity; /* of the remote side, 0 when the packet has no readable address */
	__u32 length;   /* of the frame */
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 family; /* 0: not IP, or not readable */
	__u8 protocol;
	__u8 direction;
	__u8 kind;   /* enum event_kind */
	__u8 reason; /* enum reason */
	__u8 pad[7];
};
_Static_assert(sizeof(struct event) == 72, "struct event");

/* event_budgets: how many events of one kind an endpoint has written in this window. */
struct event_budget_key {
	__u32 endpoint_id;
	__u32 kind; /* enum event_kind */
};
_Static_assert(sizeof(struct event_budget_key) == 8, "struct event_budget_key");

struct event_budget {
	__u32 window;
	__u32 written;
};
_Static_assert(sizeof(struct event_budget) == 8, "struct event_budget");

/* event_losses: one element for each CPU. */
struct event_losses {
	__u64 over_budget;
	__u64 buffer_full;
};
_Static_assert(sizeof(struct event_losses) == 16, "struct event_losses");

/* rule_counters: how often a rule decided about a connection; RULE_NONE, how often no rule allowed one. */
struct rule_counter_key {
	__u32 endpoint_id;
	__u32 rule_id;
	__u32 direction;
};
_Static_assert(sizeof(struct rule_counter_key) == 12, "struct rule_counter_key");

struct rule_counter {
	__u64 decisions;
};
_Static_assert(sizeof(struct rule_counter) == 8, "struct rule_counter");

enum config_flag {
	CONFIG_EVENT_ALLOW = 1,
};

/* config: one element. The epoch grows whenever the ipcache changes, and so makes every connection be judged again. */
struct config {
	__u32 epoch;
	__u32 abi_version;
	__u32 last_policy_id; /* for user space: no id is used twice while these maps live */
	__u32 flags;          /* enum config_flag */
};
_Static_assert(sizeof(struct config) == 16, "struct config");

/*
 * Raised with every change of this file that makes pinned maps of an earlier version useless: an agent of the new version makes its
 * own and takes the endpoints over (src/datapath/map-takeover.ts). The first three fields of struct config stay what they are.
 */
#define ABI_VERSION 3

#endif
