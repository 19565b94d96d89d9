/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Neighbour discovery may not carry anything off the link. Of what comes in, the hop limit proves that no router forwarded it; of
 * what goes out it proves nothing, and a router does forward it to an address that is not on the link. So a pod sends it to
 * link-local addresses and link-scope groups, and to others that were heard of on the link: who asked it, and whom it asked by
 * multicast before. Where that is forgotten, the kernel's probe of a neighbour is lost, and it asks by multicast again.
 */
#ifndef SLUICE_NEIGHBOUR_H
#define SLUICE_NEIGHBOUR_H

#include "correspondent.h"
#include "parse.h"

/* In the key of `correspondents`, beside enum direction. */
#define CORRESPONDENT_NEIGHBOUR 2

static __always_inline int is_link_scope(const struct address *address)
{
	return is_link_local(address) || (address->word[0] & bpf_htonl(0xff0f0000)) == bpf_htonl(0xff020000);
}

/* For PACKET_LINK. ARP is never forwarded, and DHCP has its addresses checked by the parser. */
static __always_inline int neighbour_allows(__u32 endpoint_id, const struct packet *packet, __u8 direction,
					    __u64 now_ns)
{
	struct correspondent_key key = {
	    .endpoint_id = endpoint_id,
	    .family = FAMILY_IPV6,
	    .protocol = PROTOCOL_ICMPV6,
	    .direction = CORRESPONDENT_NEIGHBOUR,
	};
	struct correspondent value = {.seen_ns = now_ns};

	if (packet->protocol != PROTOCOL_ICMPV6)
		return 1;
	if (direction == DIRECTION_EGRESS) {
		key.address = packet->destination;
		return is_link_scope(&packet->destination) || bpf_map_lookup_elem(&correspondents, &key);
	}
	if (!is_link_scope(&packet->source)) {
		key.address = packet->source;
		bpf_map_update_elem(&correspondents, &key, &value, BPF_ANY);
	}
	return 1;
}

#endif
