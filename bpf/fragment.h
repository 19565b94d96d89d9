/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Only the first fragment of a datagram has ports. It records them once it is allowed; the others look them up, and
 * are dropped when they find nothing (the first was denied, is late, or was pushed out by others).
 *
 * Entries have no age. A stale one, met again after the 16-bit identification came round, can at worst let through
 * fragments of a datagram whose first fragment is judged on its own: denied, nothing can be reassembled.
 */
#ifndef SLUICE_FRAGMENT_H
#define SLUICE_FRAGMENT_H

#include "maps.h"
#include "parse.h"

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

static __always_inline void fragment_record(__u32 endpoint_id, const struct packet *packet, __u8 direction)
{
	struct fragment_value value = {
	    .source_port = packet->source_port,
	    .destination_port = packet->destination_port,
	    .kind = packet->kind == PACKET_OPENING ? PACKET_FLOW : packet->kind,
	    .protocol = packet->protocol,
	};
	struct fragment_key key;

	fragment_key_of(&key, endpoint_id, packet, direction);
	bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
}

static __always_inline int fragment_resolve(__u32 endpoint_id, struct packet *packet, __u8 direction)
{
	struct fragment_value *value;
	struct fragment_key key;

	fragment_key_of(&key, endpoint_id, packet, direction);
	value = bpf_map_lookup_elem(&fragments, &key);
	if (!value)
		return DROP_FRAGMENT_UNKNOWN;
	packet->source_port = value->source_port;
	packet->destination_port = value->destination_port;
	packet->kind = value->kind;
	packet->protocol = value->protocol;
	return 0;
}

#endif
