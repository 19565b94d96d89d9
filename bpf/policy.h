/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SLUICE_POLICY_H
#define SLUICE_POLICY_H

#include "ipcache.h"
#include "maps.h"

/* What was found out about a packet on the way to its verdict: for counters and events. Zeroed before. */
struct judgement {
	__u32 rule_id;
	__u32 identity; /* 0: nobody asked */
	__u8 direction; /* the one that was judged: of the connection, not of the packet */
	__u8 asked;     /* a policy isolates that direction, so its rules were asked */
	__u8 opened;    /* not a packet of a known connection */
	__u8 from_node; /* it, or the one that opened its connection, had NODE_TC_INDEX */
};

static __always_inline int is_pass(int reason)
{
	return reason == REASON_FORWARDED || reason == REASON_AUDIT;
}

static __always_inline struct policy_value *policy_lookup(struct policy_key *key, __u32 identity)
{
	key->identity = identity;
	return bpf_map_lookup_elem(&policy, key);
}

_Static_assert(ENDPOINT_ISOLATED_EGRESS == ENDPOINT_ISOLATED_INGRESS << DIRECTION_EGRESS, "one bit for each direction");

static __always_inline __u32 endpoint_isolated(const struct endpoint *endpoint, __u8 direction)
{
	return endpoint->flags & (ENDPOINT_ISOLATED_INGRESS << direction);
}

/*
 * Whether the node itself sent what has its address. What it masquerades has that address too (kube-proxy does so for sources
 * outside the cluster's CIDR, which an underlay is), and anybody on the link can put it into a packet. A fragment without its
 * first is believed: it is of no use alone.
 */
static __always_inline int sent_by_node(const struct endpoint *endpoint, const struct judgement *judgement, __u8 space)
{
	return judgement->from_node || !(endpoint->flags & ENDPOINT_NODE_MARKED) || space == POLICY_ANY_PORT;
}

/*
 * Judges the connection `key` as opened in `direction`; the port is that of the side that was called. Order:
 *   1. a direction that no policy isolates allows everything;
 *   2. the node may always reach its pods (Kubernetes, "Network Policies": "traffic to and from the node where a Pod
 *      is running is always allowed"; kubelet's probes need it), which is not to say whatever it forwards;
 *   3. of the entry for the peer's identity and the entry for any identity, the one with the longer prefix, and when
 *      they are equally long the first, decides;
 *   4. what nothing allows is dropped, or let through when the endpoint is in audit mode.
 * `space` is 0, or POLICY_ANY_PORT for a packet whose ports are not known.
 */
static __always_inline int policy_judge(const struct endpoint *endpoint, const struct conntrack_key *key,
					__u8 direction, __u8 space, struct judgement *judgement)
{
	struct policy_key policy_key = {.prefix_len = POLICY_FULL_BITS};
	struct policy_value *exact, *any, *entry;

	judgement->direction = direction;
	if (!endpoint_isolated(endpoint, direction))
		return 0;
	judgement->asked = 1;
	judgement->identity = ipcache_lookup(key->family, &key->remote_address);
	if (direction == DIRECTION_INGRESS && judgement->identity == IDENTITY_HOST &&
	    sent_by_node(endpoint, judgement, space)) {
		judgement->rule_id = RULE_HOST;
		return 0;
	}

	policy_key.policy_id = endpoint->policy_id;
	policy_key.direction = direction + space;
	policy_key.protocol = key->protocol;
	policy_key.port = direction == DIRECTION_EGRESS ? key->remote_port : key->local_port;
	exact = policy_lookup(&policy_key, judgement->identity);
	any = policy_lookup(&policy_key, IDENTITY_ANY);
	entry = exact;
	if (any && (!exact || any->prefix_len > exact->prefix_len))
		entry = any;
	if (!entry || entry->action != ACTION_ALLOW)
		return endpoint->flags & ENDPOINT_AUDIT ? REASON_AUDIT : DROP_POLICY;
	judgement->rule_id = entry->rule_id;
	return 0;
}

#endif
