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

/*
 * Judged each time, never recorded. A fragment whose ports are not known is judged by whether any port is open; no rule
 * decided about it, so none is counted.
 */
static __always_inline int verdict_single(const struct endpoint *endpoint, struct conntrack_key *key, __u8 direction,
					  int is_fragment, struct judgement *judgement)
{
	int reason = policy_judge(endpoint, key, direction, is_fragment ? POLICY_ANY_PORT : 0, judgement);

	judgement->opened = !is_fragment;
	if (is_fragment)
		judgement->asked = 0;
	return is_fragment && reason == DROP_POLICY ? DROP_FRAGMENT_UNKNOWN : reason;
}

/*
 * An ICMP error belongs to the connection of the packet it quotes, which went the other way: an error that comes in
 * quotes something we sent. It must be addressed to the quoted sender. Returns UNRELATED when it belongs to none.
 */
static __always_inline int verdict_related(struct __sk_buff *skb, const struct packet *packet, __u32 endpoint_id,
					   const struct endpoint *endpoint, __u8 direction, __u64 now_ns,
					   __u32 revision, struct judgement *judgement)
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
	return entry ? conntrack_check(entry, &key, endpoint, revision, judgement) : UNRELATED;
}

static __always_inline int verdict_flow(const struct packet *packet, const struct endpoint *endpoint,
					struct conntrack_key *key, __u8 direction, __u64 now_ns, __u32 revision,
					struct judgement *judgement)
{
	struct conntrack_entry *entry = 0;
	int reason;

	if (packet->kind != PACKET_OPENING)
		entry = conntrack_lookup(key, now_ns);
	if (entry) {
		reason = conntrack_check(entry, key, endpoint, revision, judgement);
		if (is_pass(reason))
			conntrack_refresh(entry, packet, direction, now_ns);
		return reason;
	}
	judgement->opened = 1;
	reason = policy_judge(endpoint, key, direction, 0, judgement);
	if (!is_pass(reason))
		return reason;
	return conntrack_create(key, packet, direction, now_ns, revision, judgement, reason);
}

static __always_inline int verdict_ip(struct __sk_buff *skb, struct scratch *scratch, __u32 endpoint_id,
				      const struct endpoint *endpoint, __u8 direction)
{
	__u32 revision = endpoint->policy_id + config_epoch();
	struct judgement *judgement = &scratch->judgement;
	struct packet *packet = &scratch->packet;
	__u64 now_ns = clock_now_ns();
	enum fragment_state fragment = FRAGMENT_KNOWN;
	struct conntrack_key key;
	int reason;

	if (packet->kind == PACKET_FRAGMENT) {
		fragment = fragment_resolve(endpoint_id, packet, direction, now_ns);
		if (fragment == FRAGMENT_DENIED)
			return DROP_FRAGMENT_UNKNOWN;
		if (fragment == FRAGMENT_UNKNOWN)
			packet->kind = PACKET_SINGLE;
	}
	if (packet->kind == PACKET_ERROR) {
		reason = verdict_related(skb, packet, endpoint_id, endpoint, direction, now_ns, revision, judgement);
		if (reason != UNRELATED)
			return reason;
		packet->kind = PACKET_SINGLE;
	}
	conntrack_key_of(&key, endpoint_id, packet, direction);
	if (packet->kind == PACKET_SINGLE)
		return verdict_single(endpoint, &key, direction, fragment == FRAGMENT_UNKNOWN, judgement);
	return verdict_flow(packet, endpoint, &key, direction, now_ns, revision, judgement);
}

/* Returns REASON_FORWARDED, REASON_AUDIT or why not. */
static __always_inline int verdict(struct __sk_buff *skb, struct scratch *scratch, __u32 endpoint_id, __u8 direction)
{
	struct packet *packet = &scratch->packet;
	struct endpoint *endpoint;
	int reason;

	reason = parse_packet(skb, packet, direction);
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
		return endpoint_isolated(endpoint, direction) ? DROP_NON_IP : REASON_FORWARDED;
	return verdict_ip(skb, scratch, endpoint_id, endpoint, direction);
}

#endif
