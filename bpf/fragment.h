/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Only the first fragment of a datagram has ports. Its verdict is recorded and holds for the others, which are judged with
 * its ports. One that comes before the first passes as far as policy opens any port to the peer, or as the peer may be
 * answering (correspondent.h): without a first fragment that is allowed nothing can be reassembled.
 */
#ifndef SLUICE_FRAGMENT_H
#define SLUICE_FRAGMENT_H

#include "maps.h"
#include "packet.h"

/* What receivers wait for the missing fragments of a datagram (ipfrag_time; RFC 8200 section 4.5: 60 s). */
#define FRAGMENT_TIMEOUT_NS (60 * 1000000000ULL)

static __always_inline void fragment_key_of(struct fragment_key *key, __u32 endpoint_id,
					    const struct packet *packet, __u8 direction)
{
	key->endpoint_id = endpoint_id;
	key->source = packet->source;
	key->destination = packet->destination;
	key->id = packet->fragment_id;
	key->family = packet->family;
	key->direction = direction;
	/* IPv6 reassembles by addresses and identification alone (RFC 8200 section 4.5). */
	key->protocol = packet->family == FAMILY_IPV4 ? packet->protocol : 0;
	key->pad = 0;
}

/* For a first fragment, whatever its verdict. */
static __always_inline void fragment_record(__u32 endpoint_id, const struct packet *packet, __u8 direction,
					    int denied, __u64 now_ns)
{
	struct fragment_value value = {
	    .source_port = packet->source_port,
	    .destination_port = packet->destination_port,
	    .kind = packet->kind == PACKET_OPENING ? PACKET_FLOW
		    : packet->kind == PACKET_ERROR ? PACKET_SINGLE
						   : packet->kind,
	    .protocol = packet->protocol,
	    .denied = !!denied,
	    .seen_ns = now_ns,
	};
	struct fragment_key key;

	fragment_key_of(&key, endpoint_id, packet, direction);
	bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
}

/* Makes `packet`, a later fragment, a packet like the first one, or PACKET_ORPHAN when that is not known. */
static __always_inline int fragment_resolve(__u32 endpoint_id, struct packet *packet, __u8 direction, __u64 now_ns)
{
	struct fragment_value *value;
	struct fragment_key key;

	fragment_key_of(&key, endpoint_id, packet, direction);
	value = bpf_map_lookup_elem(&fragments, &key);
	if (!value || (__s64)(now_ns - value->seen_ns) > (__s64)FRAGMENT_TIMEOUT_NS) {
		packet->kind = PACKET_ORPHAN;
		return 0;
	}
	if (value->denied)
		return DROP_FRAGMENT_UNKNOWN;
	packet->source_port = value->source_port;
	packet->destination_port = value->destination_port;
	packet->kind = value->kind;
	packet->protocol = value->protocol;
	return 0;
}

#endif
