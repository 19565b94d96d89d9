/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The life of a packet: parse, endpoint, conntrack, identity and policy, verdict. Each step may end it with a reason. */
#ifndef SLUICE_VERDICT_H
#define SLUICE_VERDICT_H

#include "clock.h"
#include "conntrack.h"
#include "correspondent.h"
#include "fragment.h"
#include "metrics.h"
#include "neighbour.h"
#include "parse.h"
#include "policy.h"
#include "scratch.h"

static __always_inline __u32 config_epoch(void)
{
	__u32 zero = 0;
	struct config *element = bpf_map_lookup_elem(&config, &zero);

	return element ? element->epoch : 0;
}

/* Read at once: abi.h. All 0 when there is none. */
static __always_inline struct endpoint endpoint_read(__u32 endpoint_id)
{
	const volatile __u64 *element = bpf_map_lookup_elem(&endpoints, &endpoint_id);
	__u64 word = element ? *element : 0;
	struct endpoint endpoint = {.policy_id = word, .flags = word >> 32};

	return endpoint;
}

/*
 * An ICMP error belongs to the connection of the packet it quotes, which went the other way: an error that comes in
 * quotes something we sent. It must be addressed to the quoted sender. Leaves that connection's key in `scratch`.
 */
static __always_inline struct conntrack_entry *related_lookup(struct __sk_buff *skb, struct scratch *scratch,
							      __u32 endpoint_id, __u8 direction, __u64 now_ns)
{
	__u8 quoted_direction = direction == DIRECTION_EGRESS ? DIRECTION_INGRESS : DIRECTION_EGRESS;
	struct packet *quoted = &scratch->quoted;

	__builtin_memset(quoted, 0, sizeof(*quoted));
	if (parse_quoted(skb, &scratch->headers, &scratch->packet, quoted))
		return 0;
	if (!address_equal(&quoted->source, &scratch->packet.destination))
		return 0;
	conntrack_key_of(&scratch->key, endpoint_id, quoted, quoted_direction);
	return conntrack_lookup(&scratch->key, now_ns);
}

/*
 * The connection the packet belongs to, if we know one; `scratch->key` is then that connection's. Otherwise it is the
 * packet's own. Turns an error about nothing we know into a single packet.
 */
static __always_inline struct conntrack_entry *flow_lookup(struct __sk_buff *skb, struct scratch *scratch,
							   __u32 endpoint_id, __u8 direction, __u64 now_ns)
{
	struct packet *packet = &scratch->packet;
	struct conntrack_entry *entry;

	if (packet->kind == PACKET_ERROR) {
		entry = related_lookup(skb, scratch, endpoint_id, direction, now_ns);
		if (entry)
			return entry;
		packet->kind = PACKET_SINGLE;
	}
	conntrack_key_of(&scratch->key, endpoint_id, packet, direction);
	return packet->kind == PACKET_FLOW ? conntrack_lookup(&scratch->key, now_ns) : 0;
}

static __always_inline int is_node_marked(const struct __sk_buff *skb, const struct endpoint *endpoint)
{
	return skb->tc_index == NODE_TC_INDEX && skb->ifindex == endpoint->flags >> ENDPOINT_NODE_IFINDEX_SHIFT;
}

/*
 * Asks policy about a new connection, a single packet, or a connection judged under an earlier revision: that is judged
 * again as it was opened, even if this packet goes the other way. A connection that is no longer allowed keeps its entry,
 * unrefreshed: without one, its next packet the other way would be taken for a new connection and could revive it.
 *
 * A fragment whose ports are not known is judged by whether any port is open, or by who sends it; no rule decided about it,
 * so none is counted.
 */
static __always_inline int flow_judge(struct __sk_buff *skb, struct scratch *scratch, struct conntrack_entry *entry,
				      const struct endpoint *endpoint, __u8 direction, __u64 now_ns, __u32 revision)
{
	int is_fragment = scratch->packet.kind == PACKET_ORPHAN;
	struct judgement *judgement = &scratch->judgement;
	int reason;

	judgement->from_node = is_node_marked(skb, endpoint) || (entry && entry->flags & CONNTRACK_FROM_NODE);
	reason = policy_judge(endpoint, &scratch->key, entry ? entry->direction & 1 : direction,
			      is_fragment ? POLICY_ANY_PORT : 0, judgement);
	if (is_fragment) {
		judgement->asked = 0;
		if (reason != DROP_POLICY)
			return reason;
		return correspondent_known(&scratch->key, direction, revision, now_ns) ? REASON_FORWARDED
										       : DROP_FRAGMENT_UNKNOWN;
	}
	judgement->opened = !entry;
	if (!is_pass(reason)) {
		if (entry)
			conntrack_keep(entry);
		return reason;
	}
	if (entry)
		conntrack_renew(entry, judgement, revision, reason);
	else if (scratch->packet.kind != PACKET_SINGLE)
		return conntrack_create(&scratch->key, &scratch->packet, direction, now_ns, revision, judgement, reason);
	return reason;
}

/* Replies of a connection that passes; fragments of them pass anyway where their direction is not isolated. */
static __always_inline void replies_expect(struct scratch *scratch, const struct conntrack_entry *entry,
					   const struct endpoint *endpoint, __u8 direction, __u64 now_ns,
					   __u32 revision)
{
	__u8 opened = entry ? entry->direction & 1 : direction;

	if (endpoint_isolated(endpoint, !opened))
		correspondent_note(&scratch->key, !opened, revision, now_ns);
}

static __always_inline int verdict_ip(struct __sk_buff *skb, struct scratch *scratch, __u32 endpoint_id,
				      const struct endpoint *endpoint, __u8 direction)
{
	__u32 revision = endpoint->policy_id + config_epoch();
	__u64 now_ns = clock_now_ns(&scratch->clock);
	struct packet *packet = &scratch->packet;
	struct conntrack_entry *entry;
	int reason, is_judged;

	if (packet->kind == PACKET_FRAGMENT) {
		reason = fragment_resolve(endpoint_id, packet, direction, now_ns);
		if (reason)
			return reason;
	}
	entry = flow_lookup(skb, scratch, endpoint_id, direction, now_ns);
	is_judged = !entry || entry->revision != revision;
	if (is_judged)
		reason = flow_judge(skb, scratch, entry, endpoint, direction, now_ns, revision);
	else
		reason = entry->flags & CONNTRACK_AUDITED ? REASON_AUDIT : REASON_FORWARDED;

	if (!is_pass(reason) || packet->kind >= PACKET_ERROR)
		return reason;
	if (entry && conntrack_refresh(entry, packet, direction, now_ns))
		is_judged = 1;
	if (is_judged)
		replies_expect(scratch, entry, endpoint, direction, now_ns, revision);
	return reason;
}

/* Returns REASON_FORWARDED, REASON_AUDIT or why not. */
static __always_inline int verdict(struct __sk_buff *skb, struct scratch *scratch, __u32 endpoint_id, __u8 direction)
{
	struct packet *packet = &scratch->packet;
	struct endpoint endpoint;
	int reason;

	reason = parse_packet(skb, &scratch->headers, packet, direction);
	if (reason)
		return reason;
	if (packet->kind == PACKET_LINK) {
		if (neighbour_allows(endpoint_id, packet, direction, clock_now_ns(&scratch->clock)))
			return REASON_FORWARDED;
		packet->kind = PACKET_SINGLE;
	}
	endpoint = endpoint_read(endpoint_id);
	if (!endpoint.flags)
		return DROP_NO_ENDPOINT;
	if (!(endpoint.flags & ENDPOINT_PROGRAMMED))
		return DROP_NOT_PROGRAMMED;
	if (packet->kind == PACKET_NON_IP)
		return endpoint_isolated(&endpoint, direction) ? DROP_NON_IP : REASON_FORWARDED;
	return verdict_ip(skb, scratch, endpoint_id, &endpoint, direction);
}

#endif
