/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * From bytes to a struct packet. Nothing here looks at a map.
 *
 * One idiom for bounds: cursor_read() copies the next bytes and moves on, or says there are none. It copies with
 * bpf_skb_load_bytes(), so that it does not matter whether the driver put the bytes into the linear part of the skb,
 * and the verifier never has to reason about a pointer plus a variable offset. Only the headers that nearly every packet
 * has are first looked for in the linear part, at their usual place: a call costs 15 to 20 ns (measured).
 *
 * Every function returns 0 or the enum reason to drop for.
 */
#ifndef SLUICE_PARSE_H
#define SLUICE_PARSE_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "packet.h"

/* RFC 8200 section 4.1 recommends each header at most once: that is seven; nobody has a use for more. */
#define EXTENSION_HEADERS_MAX 7

/* What changes is in the headers, in a map, so that the verifier does not follow each value it may have. */
struct cursor {
	struct __sk_buff *skb;
	struct headers *headers;
	__u8 direction; /* of the packet */
};

/* Without options, and without extension headers. */
#define IPV4_USUAL_END (ETH_HLEN + sizeof(struct ipv4_header))
#define IPV6_USUAL_END (ETH_HLEN + sizeof(struct ipv6_header))

static __always_inline int cursor_read(struct cursor *cursor, void *to, __u32 bytes)
{
	if (bpf_skb_load_bytes(cursor->skb, cursor->headers->offset, to, bytes) < 0)
		return DROP_TRUNCATED;
	cursor->headers->offset += bytes;
	return 0;
}

/* Copies a multiple of 4 bytes from the linear part, or says that it does not have them. `at` is a constant. */
static __always_inline int linear_read(struct __sk_buff *skb, __u32 at, void *to, __u32 bytes)
{
	void *data = (void *)(long)skb->data;

	if (data + at + bytes > (void *)(long)skb->data_end)
		return DROP_TRUNCATED;
	for (__u32 i = 0; i < bytes; i += 4)
		*(__u32 *)(to + i) = *(__u32 *)(data + at + i);
	return 0;
}

/* Like cursor_read(), for what usually is at `usual_offset`. */
static __always_inline int cursor_read_usual(struct cursor *cursor, __u32 usual_offset, void *to, __u32 bytes)
{
	if (cursor->headers->offset != usual_offset || linear_read(cursor->skb, usual_offset, to, bytes))
		return cursor_read(cursor, to, bytes);
	cursor->headers->offset += bytes;
	return 0;
}

static __always_inline int address_equal(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

/* ICMP type and code are the first two bytes of the header. */
static __always_inline __u8 icmp_type(const struct transport_header *header)
{
	return *(const __u8 *)&header->source_port;
}

static __always_inline __u8 icmp_code(const struct transport_header *header)
{
	return *((const __u8 *)&header->source_port + 1);
}

static __always_inline void packet_set_echo(struct packet *packet, __be16 id, int is_request)
{
	packet->source_port = is_request ? id : 0;
	packet->destination_port = is_request ? 0 : id;
	packet->kind = PACKET_FLOW;
}

/* Redirect and source quench are left out of the errors: no connection needs them, and they can do harm. */
static __always_inline void parse_icmp(struct packet *packet, const struct transport_header *header,
				       __u32 inner)
{
	__u8 type = icmp_type(header);

	packet->kind = PACKET_SINGLE;
	if (type == ICMP_ECHO_REQUEST || type == ICMP_ECHO_REPLY) {
		packet_set_echo(packet, *(const __be16 *)&header->second_word, type == ICMP_ECHO_REQUEST);
	} else if (type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER_PROBLEM) {
		packet->kind = PACKET_ERROR;
		packet->inner = inner;
	}
}

/*
 * Neighbour discovery is to IPv6 what ARP is to IPv4. RFC 4861 section 7: a hop limit of 255 proves that no router
 * forwarded it; the code is always 0. Listener reports (RFC 3810 section 5: hop limit 1, link-scope groups) make
 * switches that snoop deliver the multicast that neighbour discovery uses; they are let through as far as a
 * link-scope group only.
 */
static __always_inline int is_link_control(const struct packet *packet, __u8 type, __u8 code, __u8 hop_limit)
{
	if (type >= ICMPV6_ROUTER_SOLICITATION && type <= ICMPV6_REDIRECT)
		return hop_limit == 255 && code == 0;
	if ((type >= ICMPV6_LISTENER_QUERY && type <= ICMPV6_LISTENER_DONE) || type == ICMPV6_LISTENER_REPORT_V2)
		return hop_limit == 1 && (packet->destination.word[0] & bpf_htonl(0xff0f0000)) == bpf_htonl(0xff020000);
	return 0;
}

static __always_inline void parse_icmpv6(struct packet *packet, const struct transport_header *header,
					 __u32 inner, __u8 hop_limit)
{
	__u8 type = icmp_type(header);

	packet->kind = PACKET_SINGLE;
	if (type == ICMPV6_ECHO_REQUEST || type == ICMPV6_ECHO_REPLY) {
		packet_set_echo(packet, *(const __be16 *)&header->second_word, type == ICMPV6_ECHO_REQUEST);
	} else if (type >= 1 && type <= ICMPV6_ERROR_LAST) {
		packet->kind = PACKET_ERROR;
		packet->inner = inner;
	} else if (is_link_control(packet, type, icmp_code(header), hop_limit)) {
		packet->kind = PACKET_LINK;
	}
}

/* A first fragment must hold the whole header, or a later one could supply the flags (RFC 3128). */
static __always_inline int parse_tcp(struct cursor *cursor, struct packet *packet, __u32 usual_offset)
{
	struct tcp_header *header = &cursor->headers->transport;
	int reason;

	reason = cursor_read_usual(cursor, usual_offset, header, sizeof(*header));
	if (reason)
		return reason;
	packet->source_port = header->source_port;
	packet->destination_port = header->destination_port;
	packet->tcp_flags = header->flags;
	if ((header->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		packet->kind = PACKET_OPENING;
	return 0;
}

static __always_inline int is_link_local(const struct address *address)
{
	return (address->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/*
 * A client asks before it has an address (RFC 2131 section 4.1), or from its link-local one (RFC 8415 section 7), and is
 * answered on the link. Renewals are unicast, and connections like any other. A pod may ask, not answer.
 */
static __always_inline int is_dhcp(const struct packet *packet, __u8 direction)
{
	int asks = direction == DIRECTION_EGRESS;

	if (packet->family == FAMILY_IPV4)
		return packet->source_port == bpf_htons(asks ? 68 : 67) &&
		       packet->destination_port == bpf_htons(asks ? 67 : 68) &&
		       packet->destination.word[0] == 0xffffffff && (!asks || packet->source.word[0] == 0);
	if (packet->source_port != bpf_htons(asks ? 546 : 547) ||
	    packet->destination_port != bpf_htons(asks ? 547 : 546) || !is_link_local(&packet->source))
		return 0;
	if (!asks)
		return is_link_local(&packet->destination);
	return packet->destination.word[0] == bpf_htonl(0xff020000) && packet->destination.word[1] == 0 &&
	       packet->destination.word[2] == 0 && packet->destination.word[3] == bpf_htonl(0x00010002);
}

/*
 * A SYN without ACK (above), and an SCTP packet with verification tag 0 (RFC 9260 section 8.5.1: an INIT), open a connection
 * even where conntrack knows one with the same tuple: they are never a reply.
 */
static __always_inline int parse_transport(struct cursor *cursor, struct packet *packet, __u8 hop_limit,
					   __u32 usual_offset)
{
	struct transport_header *header = (struct transport_header *)&cursor->headers->transport;
	int reason;

	switch (packet->protocol) {
	case IPPROTO_TCP:
		return parse_tcp(cursor, packet, usual_offset);
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
	case IPPROTO_ICMP:
	case PROTOCOL_ICMPV6:
		break;
	default:
		return 0;
	}
	reason = cursor_read_usual(cursor, usual_offset, header, sizeof(*header));
	if (reason)
		return reason;
	if (packet->protocol == IPPROTO_ICMP && packet->family == FAMILY_IPV4) {
		parse_icmp(packet, header, cursor->headers->offset);
		return 0;
	}
	if (packet->protocol == PROTOCOL_ICMPV6 && packet->family == FAMILY_IPV6) {
		parse_icmpv6(packet, header, cursor->headers->offset, hop_limit);
		return 0;
	}
	if (packet->protocol == IPPROTO_ICMP || packet->protocol == PROTOCOL_ICMPV6)
		return 0; /* ICMP of the other family: a protocol like any other, without ports */
	packet->source_port = header->source_port;
	packet->destination_port = header->destination_port;
	if (packet->protocol == IPPROTO_SCTP && header->second_word == 0)
		packet->kind = PACKET_OPENING;
	if (packet->protocol == IPPROTO_UDP && !packet->first_fragment && is_dhcp(packet, cursor->direction))
		packet->kind = PACKET_LINK;
	return 0;
}

/* A TCP fragment at offset 8 could overwrite the flags of the first one (RFC 3128 section 2). */
static __always_inline int parse_later_fragment(struct packet *packet, __u32 offset_bytes)
{
	packet->kind = PACKET_FRAGMENT;
	return packet->protocol == IPPROTO_TCP && offset_bytes < TCP_HEADER_MIN ? DROP_MALFORMED : 0;
}

/*
 * Steps over the options, which end at `end`. With a source route the destination is not the final one, and policy would judge the
 * wrong address; any process may ask for one (ip(7), IP_OPTIONS).
 */
static __always_inline int parse_options(struct cursor *cursor, __u32 end)
{
	struct ipv4_option *option = &cursor->headers->option;

	for (int i = 0; i < IPV4_OPTIONS_MAX; i++) {
		if (cursor->headers->offset >= end)
			return 0;
		if (cursor_read(cursor, &option->type, 1))
			return DROP_TRUNCATED;
		if (option->type == IPV4_OPTION_END)
			return 0;
		if (option->type == IPV4_OPTION_NOP)
			continue;
		if (option->type == IPV4_OPTION_LOOSE_ROUTE || option->type == IPV4_OPTION_STRICT_ROUTE)
			return DROP_SOURCE_ROUTE;
		if (cursor_read(cursor, &option->length, 1))
			return DROP_TRUNCATED;
		if (option->length < 2)
			return DROP_MALFORMED;
		cursor->headers->offset += option->length - 2;
	}
	return 0;
}

/* Total length 0 is what the kernel writes into packets of more than 64 KiB that segmentation offload will cut. */
static __always_inline int parse_ipv4(struct cursor *cursor, struct packet *packet)
{
	const struct ipv4_header *header = &cursor->headers->start.ipv4;
	__u32 start = cursor->headers->offset, header_len, total_len;
	__u16 fragment;
	int reason;

	header_len = (header->version_ihl & 0x0f) * 4;
	total_len = bpf_ntohs(header->total_len);
	if (header->version_ihl >> 4 != 4 || header_len < sizeof(*header))
		return DROP_MALFORMED;
	if (total_len < header_len && !(total_len == 0 && cursor->skb->gso_size))
		return DROP_MALFORMED;
	if (start + total_len > cursor->skb->len)
		return DROP_TRUNCATED;

	packet->family = FAMILY_IPV4;
	packet->protocol = header->protocol;
	packet->source.word[0] = header->source;
	packet->destination.word[0] = header->destination;
	if (header_len > sizeof(*header)) {
		cursor->headers->offset = start + sizeof(*header);
		reason = parse_options(cursor, start + header_len);
		if (reason)
			return reason;
	}
	cursor->headers->offset = start + header_len;

	fragment = bpf_ntohs(header->fragment);
	packet->fragment_id = header->id;
	if (fragment & IPV4_FRAGMENT_OFFSET)
		return parse_later_fragment(packet, (fragment & IPV4_FRAGMENT_OFFSET) * 8);
	packet->first_fragment = !!(fragment & IPV4_MORE_FRAGMENTS);
	return parse_transport(cursor, packet, header->ttl, IPV4_USUAL_END);
}

/* One bit for each type: a switch would have the verifier follow each of them on its own. */
static __always_inline int is_extension(__u8 type)
{
	const __u64 low = 1ULL << PROTOCOL_HOP_BY_HOP | 1ULL << PROTOCOL_ROUTING | 1ULL << PROTOCOL_FRAGMENT |
			  1ULL << PROTOCOL_AUTHENTICATION | 1ULL << PROTOCOL_DESTINATION_OPTIONS;
	const __u64 high = 1ULL << (PROTOCOL_MOBILITY - 128) | 1ULL << (PROTOCOL_HIP - 128) |
			   1ULL << (PROTOCOL_SHIM6 - 128);

	if (type & 0x40)
		return 0;
	return (type & 0x80 ? high : low) >> (type & 0x3f) & 1;
}

/*
 * Steps over one extension header. Returns 0 when it did, 1 when `next` is no extension header, or a negated reason. A
 * routing header with segments left has a destination that is not the final one, and policy would judge the wrong
 * address: it is dropped.
 */
static __always_inline int parse_extension(struct cursor *cursor, struct packet *packet)
{
	struct headers *headers = cursor->headers;
	struct extension_header *extension = &headers->extension;
	__u32 start = headers->offset;
	__u8 type = headers->next;

	if (!is_extension(type))
		return 1;
	if (cursor_read(cursor, extension, sizeof(*extension)))
		return -DROP_TRUNCATED;
	headers->next = extension->next_header;
	if (type == PROTOCOL_FRAGMENT) {
		headers->fragment = bpf_ntohs(extension->fragment);
		packet->fragment_id = extension->fragment_id;
		return 0;
	}
	if (type == PROTOCOL_ROUTING && (bpf_ntohs(extension->fragment) & 0xff))
		return -DROP_SOURCE_ROUTE;
	/* RFC 4302 section 2.2: the authentication header counts in 4 bytes, minus 2; all others in 8, minus 1. */
	headers->offset = start + (type == PROTOCOL_AUTHENTICATION ? (extension->length + 2) * 4
								   : (extension->length + 1) * 8);
	return 0;
}

/* Returns 0, or the reason to drop for. `fragment` and `next` are then what the extension headers say. */
static __always_inline int parse_extensions(struct cursor *cursor, struct packet *packet)
{
	struct headers *headers = cursor->headers;
	int step = 0;

	headers->fragment = 0;
	for (int i = 0; i <= EXTENSION_HEADERS_MAX; i++) {
		step = parse_extension(cursor, packet);
		/* What follows the fragment header of a later fragment is the middle of something. */
		if (step || (headers->fragment & IPV6_FRAGMENT_OFFSET))
			break;
	}
	if (step < 0)
		return -step;
	return step == 0 && !(headers->fragment & IPV6_FRAGMENT_OFFSET) ? DROP_EXTENSION_HEADERS : 0;
}

static __always_inline int parse_ipv6(struct cursor *cursor, struct packet *packet)
{
	struct headers *headers = cursor->headers;
	struct ipv6_header *header = &headers->ipv6;
	int reason;

	reason = cursor_read_usual(cursor, ETH_HLEN, header, sizeof(*header));
	if (reason)
		return reason;
	if ((bpf_ntohl(header->version_class_label) >> 28) != 6)
		return DROP_MALFORMED;
	if (headers->offset + bpf_ntohs(header->payload_len) > cursor->skb->len)
		return DROP_TRUNCATED;
	packet->family = FAMILY_IPV6;
	packet->source = header->source;
	packet->destination = header->destination;

	headers->next = header->next_header;
	reason = parse_extensions(cursor, packet);
	if (reason)
		return reason;
	packet->protocol = headers->next;
	if (headers->fragment & IPV6_FRAGMENT_OFFSET)
		return parse_later_fragment(packet, headers->fragment & IPV6_FRAGMENT_OFFSET);
	if (packet->protocol == PROTOCOL_NO_NEXT_HEADER)
		return DROP_MALFORMED;
	packet->first_fragment = !!(headers->fragment & IPV6_MORE_FRAGMENTS);
	return parse_transport(cursor, packet, header->hop_limit, IPV6_USUAL_END);
}

/*
 * A frame for a VLAN is none of the pod's network: the same address is another machine there. (Id 0 is a priority only; the kernel has
 * taken the tag out of the frame.) A raw socket may say IP to the kernel, which ipvlan in mode l3 believes, and something else on the wire.
 */
static __always_inline int is_elsewhere(const struct __sk_buff *skb, __be16 ethertype)
{
	if (skb->vlan_present && (skb->vlan_tci & VLAN_ID_MASK))
		return 1;
	return skb->protocol != ethertype &&
	       (skb->protocol == bpf_htons(ETH_P_IP) || skb->protocol == bpf_htons(ETH_P_IPV6));
}

/* `packet` is zeroed by the caller. */
static __always_inline int parse_packet(struct __sk_buff *skb, struct headers *headers, struct packet *packet,
					__u8 direction)
{
	struct cursor cursor = {.skb = skb, .headers = headers, .direction = direction};
	struct frame_start *start = &headers->start;
	int reason;

	headers->offset = 0;
	if (linear_read(skb, ETH_HLEN - 4, start->source_mac + 4, 4 + sizeof(start->ipv4))) {
		reason = cursor_read(&cursor, start->destination_mac, sizeof(*start) - sizeof(start->pad));
		if (reason)
			return reason;
	}
	headers->offset = ETH_HLEN;
	if (is_elsewhere(skb, start->ethertype)) {
		packet->kind = PACKET_NON_IP;
		return 0;
	}
	switch (start->ethertype) {
	case bpf_htons(ETH_P_IP):
		return parse_ipv4(&cursor, packet);
	case bpf_htons(ETH_P_IPV6):
		return parse_ipv6(&cursor, packet);
	case bpf_htons(ETH_P_ARP):
		packet->kind = PACKET_LINK;
		return 0;
	default:
		packet->kind = PACKET_NON_IP;
		return 0;
	}
}

/*
 * The packet that an ICMP error quotes: the header and at least 8 bytes (RFC 792, RFC 4443 section 3). `inner` is zeroed by
 * the caller and gets the family of `outer`. Extension headers are not walked here: an error about such a packet is judged
 * on its own. Returns 0 when `inner` describes the quoted packet.
 */
static __always_inline int parse_quoted(struct __sk_buff *skb, struct headers *headers, const struct packet *outer,
					struct packet *inner)
{
	struct transport_header *transport = (struct transport_header *)&headers->transport;
	struct ipv4_header *ipv4 = &headers->start.ipv4;
	struct ipv6_header *ipv6 = &headers->ipv6;
	struct cursor cursor = {.skb = skb, .headers = headers};

	headers->offset = outer->inner;
	inner->family = outer->family;
	if (outer->family == FAMILY_IPV4) {
		if (cursor_read(&cursor, ipv4, sizeof(*ipv4)) || (ipv4->version_ihl >> 4) != 4)
			return DROP_MALFORMED;
		if (bpf_ntohs(ipv4->fragment) & IPV4_FRAGMENT_OFFSET)
			return DROP_MALFORMED;
		headers->offset += (ipv4->version_ihl & 0x0f) * 4 - sizeof(*ipv4);
		inner->protocol = ipv4->protocol;
		inner->source.word[0] = ipv4->source;
		inner->destination.word[0] = ipv4->destination;
	} else {
		if (cursor_read(&cursor, ipv6, sizeof(*ipv6)))
			return DROP_MALFORMED;
		inner->protocol = ipv6->next_header;
		inner->source = ipv6->source;
		inner->destination = ipv6->destination;
	}
	if (cursor_read(&cursor, transport, sizeof(*transport)))
		return DROP_MALFORMED;
	switch (inner->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		inner->source_port = transport->source_port;
		inner->destination_port = transport->destination_port;
		return 0;
	case IPPROTO_ICMP:
	case PROTOCOL_ICMPV6:
		packet_set_echo(inner, *(const __be16 *)&transport->second_word,
				icmp_type(transport) == ICMP_ECHO_REQUEST || icmp_type(transport) == ICMPV6_ECHO_REQUEST);
		return 0;
	default:
		return 0;
	}
}

#endif
