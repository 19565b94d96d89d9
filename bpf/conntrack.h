/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Connections that policy allowed, so that replies pass and established packets cost one lookup.
 *
 * Two CPUs may see packets of one connection at the same time, and write flags and times without locks. The worst
 * outcome is a lost FIN or "replied" bit, and so a wrong timeout for one entry: accepted.
 */
#ifndef SLUICE_CONNTRACK_H
#define SLUICE_CONNTRACK_H

#include "maps.h"
#include "packet.h"
#include "policy.h"

#define NS_PER_S 1000000000ULL

/* The time since the last packet after which an entry counts as absent. All are in docs/reference/limits.md. */
#define CONNTRACK_TCP_OPENING_NS (60 * NS_PER_S)
#define CONNTRACK_TCP_ESTABLISHED_NS (21600 * NS_PER_S)
#define CONNTRACK_TCP_HALF_CLOSED_NS (120 * NS_PER_S)
#define CONNTRACK_TCP_CLOSED_NS (10 * NS_PER_S)
#define CONNTRACK_UDP_UNREPLIED_NS (30 * NS_PER_S)
#define CONNTRACK_UDP_REPLIED_NS (120 * NS_PER_S)
#define CONNTRACK_SCTP_NS (900 * NS_PER_S)
#define CONNTRACK_ICMP_NS (30 * NS_PER_S)
#define CONNTRACK_OTHER_NS (600 * NS_PER_S)

/* The time is written at most this often, so that established packets share the entry's cache line read-only. */
#define CONNTRACK_REFRESH_NS (1 * NS_PER_S)

static __always_inline void conntrack_key_of(struct conntrack_key *key, __u32 endpoint_id,
					     const struct packet *packet, __u8 direction)
{
	key->endpoint_id = endpoint_id;
	key->family = packet->family;
	key->protocol = packet->protocol;
	key->pad = 0;
	if (direction == DIRECTION_EGRESS) {
		key->local_address = packet->source;
		key->remote_address = packet->destination;
		key->local_port = packet->source_port;
		key->remote_port = packet->destination_port;
	} else {
		key->local_address = packet->destination;
		key->remote_address = packet->source;
		key->local_port = packet->destination_port;
		key->remote_port = packet->source_port;
	}
}

static __always_inline __u64 conntrack_tcp_timeout_ns(__u8 flags)
{
	__u8 fins = flags & (CONNTRACK_FIN_ORIGINAL | CONNTRACK_FIN_REPLY);

	if ((flags & CONNTRACK_RST) || fins == (CONNTRACK_FIN_ORIGINAL | CONNTRACK_FIN_REPLY))
		return CONNTRACK_TCP_CLOSED_NS;
	if (fins)
		return CONNTRACK_TCP_HALF_CLOSED_NS;
	return flags & CONNTRACK_REPLIED ? CONNTRACK_TCP_ESTABLISHED_NS : CONNTRACK_TCP_OPENING_NS;
}

static __always_inline __u64 conntrack_timeout_ns(__u8 protocol, __u8 flags)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return conntrack_tcp_timeout_ns(flags);
	case IPPROTO_UDP:
		return flags & CONNTRACK_REPLIED ? CONNTRACK_UDP_REPLIED_NS : CONNTRACK_UDP_UNREPLIED_NS;
	case IPPROTO_SCTP:
		return CONNTRACK_SCTP_NS;
	case IPPROTO_ICMP:
	case PROTOCOL_ICMPV6:
		return CONNTRACK_ICMP_NS;
	default:
		return CONNTRACK_OTHER_NS;
	}
}

/* The clocks of two CPUs differ by up to a tick, so an entry may be younger than now. */
static __always_inline __s64 conntrack_age_ns(const struct conntrack_entry *entry, __u64 now_ns)
{
	return (__s64)(now_ns - entry->last_seen_ns);
}

static __always_inline struct conntrack_entry *conntrack_lookup(const struct conntrack_key *key, __u64 now_ns)
{
	struct conntrack_entry *entry = bpf_map_lookup_elem(&conntrack, key);

	if (!entry || conntrack_age_ns(entry, now_ns) > (__s64)conntrack_timeout_ns(key->protocol, entry->flags))
		return 0;
	return entry;
}

/* Judged again, as it was opened, and passed. `reason` is 0 or REASON_AUDIT. */
static __always_inline void conntrack_renew(struct conntrack_entry *entry, const struct judgement *judgement,
					    __u32 revision, int reason)
{
	entry->rule_id = judgement->rule_id;
	entry->identity = judgement->identity;
	entry->flags = reason ? entry->flags | CONNTRACK_AUDITED : entry->flags & ~CONNTRACK_AUDITED;
	entry->revision = revision;
}

/*
 * Judged again and denied. One that is half closed, or that somebody only seemed to reset, would soon count as absent, and what the
 * other side sends again as a new connection of its own.
 */
static __always_inline void conntrack_keep(struct conntrack_entry *entry)
{
	entry->flags = (entry->flags | CONNTRACK_REPLIED) &
		       ~(CONNTRACK_FIN_ORIGINAL | CONNTRACK_FIN_REPLY | CONNTRACK_RST);
}

static __always_inline __u8 conntrack_flags_of(__u8 tcp_flags, int is_reply)
{
	__u8 flags = is_reply ? CONNTRACK_REPLIED : 0;

	if (tcp_flags & TCP_FIN)
		flags |= is_reply ? CONNTRACK_FIN_REPLY : CONNTRACK_FIN_ORIGINAL;
	if (tcp_flags & TCP_RST)
		flags |= CONNTRACK_RST;
	return flags;
}

/* Whether the time was written. */
static __always_inline int conntrack_refresh(struct conntrack_entry *entry, const struct packet *packet,
					     __u8 direction, __u64 now_ns)
{
	__u8 flags = entry->flags | conntrack_flags_of(packet->tcp_flags, direction != entry->direction);

	if (flags != entry->flags)
		entry->flags = flags;
	if (conntrack_age_ns(entry, now_ns) <= (__s64)CONNTRACK_REFRESH_NS)
		return 0;
	entry->last_seen_ns = now_ns;
	return 1;
}

/*
 * Made for every connection that passes, isolated or not: a policy that comes later must not cut the replies. `reason` is
 * 0 or REASON_AUDIT.
 */
static __always_inline int conntrack_create(const struct conntrack_key *key, const struct packet *packet,
					    __u8 direction, __u64 now_ns, __u32 revision,
					    const struct judgement *judgement, int reason)
{
	struct conntrack_entry entry = {
	    .last_seen_ns = now_ns,
	    .revision = revision,
	    .rule_id = judgement->rule_id,
	    .identity = judgement->identity,
	    .direction = direction,
	    .flags = conntrack_flags_of(packet->tcp_flags, 0) | (reason ? CONNTRACK_AUDITED : 0) |
		     (judgement->from_node ? CONNTRACK_FROM_NODE : 0),
	};

	return bpf_map_update_elem(&conntrack, key, &entry, BPF_ANY) ? DROP_CONNTRACK_FULL : reason;
}

#endif
