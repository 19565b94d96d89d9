/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* The life of a packet: parse, endpoint, conntrack, identity and policy, verdict. Each step may end it with a reason. */
#ifndef SLUICE_VERDICT_H
#define SLUICE_VERDICT_H

#include "clock.h"
#include "conntrack.h"
#include "fragment.h"
#include "metrics.h"
#include "parse.h"
#include "policy.h"
#include "scratch.h"

#define UNRELATED -1

static __always_inline __u32 config_epoch(void)
{
	__u32 zero = 0;
	struct config *element = bpf_map_lookup_elem(&config, &zero);

	return element ? element->epoch : 0;
}

/* Judged each time, never recorded. */
static __always_inline int verdict_single(const struct endpoint *endpoint, struct conntrack_key *key, __u8 direction)
{
	struct judgement judgement = {};

	return policy_judge(endpoint, key, direction, &judgement);
}

/*
 * An ICMP error belongs to the connection of the packet it quotes, which went the other way: an error that comes in
 * quotes something we sent. It must be addressed to the quoted sender. Returns UNRELATED when it belongs to none.
 */
static __always_inline int verdict_related(struct __sk_buff *skb, const struct packet *packet, __u32 endpoint_id,
					   const struct endpoint *endpoint, __u8 direction, __u64 now_ns,
					   __u32 revision)
{
	__u8 quoted_direction = direction == DIRECTION_EGRESS ? DIRECTION_INGRESS : DIRECTION_EGRESS;
	struct conntrack_entry *entry;
	struct conntrack_key key = {};
	struct packet quoted = {};

	if (parse_quoted(skb, packet, &quoted))
		return UNRELATED;
	if (!address_equal(&quoted.source, &packet->destination))
		return UNRELATED;
	conntrack_key_of(&key, endpoint_id, &quoted, quoted_direction);
	entry = conntrack_lookup(&key, now_ns);
	return entry ? conntrack_check(entry, &key, endpoint, revision) : UNRELATED;
}

static __always_inline int verdict_flow(const struct packet *packet, const struct endpoint *endpoint,
					struct conntrack_key *key, __u8 direction, __u64 now_ns, __u32 revision)
{
	struct conntrack_entry *entry = 0;
	struct judgement judgement = {};
	int reason;

	if (packet->kind != PACKET_OPENING)
		entry = conntrack_lookup(key, now_ns);
	if (entry) {
		reason = conntrack_check(entry, key, endpoint, revision);
		if (!reason)
			conntrack_refresh(entry, packet, direction, now_ns);
		return reason;
	}
	reason = policy_judge(endpoint, key, direction, &judgement);
	if (reason)
		return reason;
	return conntrack_create(key, packet, direction, now_ns, revision, &judgement);
}

static __always_inline int verdict_ip(struct __sk_buff *skb, struct packet *packet, __u32 endpoint_id,
				      const struct endpoint *endpoint, __u8 direction)
{
	__u32 revision = endpoint->policy_id + config_epoch();
	__u64 now_ns = clock_now_ns();
	struct conntrack_key key;
	int reason;

	if (packet->kind == PACKET_FRAGMENT) {
		reason = fragment_resolve(endpoint_id, packet, direction);
		if (reason)
			return reason;
	}
	if (packet->kind == PACKET_ERROR) {
		reason = verdict_related(skb, packet, endpoint_id, endpoint, direction, now_ns, revision);
		if (reason != UNRELATED)
			return reason;
		packet->kind = PACKET_SINGLE;
	}
	conntrack_key_of(&key, endpoint_id, packet, direction);
	reason = packet->kind == PACKET_SINGLE ? verdict_single(endpoint, &key, direction)
					       : verdict_flow(packet, endpoint, &key, direction, now_ns, revision);
	if (!reason && packet->first_fragment)
		fragment_record(endpoint_id, packet, direction);
	return reason;
}

/* Returns REASON_FORWARDED or why not. */
static __always_inline int verdict(struct __sk_buff *skb, __u32 endpoint_id, __u8 direction)
{
	__u32 isolated = direction == DIRECTION_EGRESS ? ENDPOINT_ISOLATED_EGRESS : ENDPOINT_ISOLATED_INGRESS;
	struct packet *packet = scratch_packet();
	struct endpoint *endpoint;
	int reason;

	if (!packet)
		return DROP_MALFORMED;
	reason = parse_packet(skb, packet);
	if (reason)
		return reason;
	if (packet->kind == PACKET_LINK)
		return REASON_FORWARDED;
	endpoint = bpf_map_lookup_elem(&endpoints, &endpoint_id);
	if (!endpoint)
		return DROP_NO_ENDPOINT;
	if (!(endpoint->flags & ENDPOINT_PROGRAMMED))
		return DROP_NOT_PROGRAMMED;
	if (packet->kind == PACKET_NON_IP)
		return endpoint->flags & isolated ? DROP_NON_IP : REASON_FORWARDED;
	return verdict_ip(skb, packet, endpoint_id, endpoint, direction);
}

#endif
