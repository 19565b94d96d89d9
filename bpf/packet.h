/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/* A packet: what the wire has (headers, their numbers), and what we know of one that has been read (parse.h). */
#ifndef SLUICE_PACKET_H
#define SLUICE_PACKET_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include "abi.h"

enum packet_kind {
	PACKET_FLOW = 0,     /* has a connection, to be found by its ports */
	PACKET_OPENING = 1,  /* starts a connection, whatever conntrack says */
	PACKET_ERROR = 2,    /* an ICMP error about another packet, which begins at `inner` */
	PACKET_SINGLE = 3,   /* belongs to no connection */
	PACKET_LINK = 4,     /* neighbour discovery, ARP or DHCP: needed before there can be any policy */
	PACKET_FRAGMENT = 5, /* a fragment without the ports: fragment.h finds out the rest */
	PACKET_NON_IP = 6, /* or of another network */
	PACKET_ORPHAN = 7, /* a fragment of which nobody finds out the rest */
};

struct packet {
	struct address source;
	struct address destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 family;
	__u8 protocol;
	__u8 tcp_flags;
	__u8 first_fragment;
	__u32 kind;
	__be32 fragment_id;
	__u32 inner;
};

struct ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_len;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 destination;
};
_Static_assert(sizeof(struct ipv4_header) == 20, "RFC 791 section 3.1");

struct ipv4_option {
	__u8 type;
	__u8 length; /* not of IPV4_OPTION_END and IPV4_OPTION_NOP */
};

struct ipv6_header {
	__be32 version_class_label;
	__be16 payload_len;
	__u8 next_header;
	__u8 hop_limit;
	struct address source;
	struct address destination;
};
_Static_assert(sizeof(struct ipv6_header) == 40, "RFC 8200 section 3");

struct extension_header {
	__u8 next_header;
	__u8 length;
	__be16 fragment; /* RFC 8200 section 4.5; in a routing header: type, segments left */
	__be32 fragment_id;
};
_Static_assert(sizeof(struct extension_header) == 8, "RFC 8200 section 4.2");

/* UDP; the start of SCTP, TCP and, read differently, ICMP. */
struct transport_header {
	__be16 source_port;
	__be16 destination_port;
	__be32 second_word; /* SCTP: the verification tag; ICMP echo: identifier, sequence */
};
_Static_assert(sizeof(struct transport_header) == 8, "RFC 768");

struct tcp_header {
	__be16 source_port;
	__be16 destination_port;
	__be32 sequence;
	__be32 acknowledged;
	__u8 data_offset;
	__u8 flags;
	__be16 window;
	__be16 checksum;
	__be16 urgent;
};
_Static_assert(sizeof(struct tcp_header) == 20, "RFC 9293 section 3.1");

/*
 * Ethernet, and the 20 bytes that every frame with something in it has. The ethertype is the one on the wire:
 * skb->protocol is what a raw socket claims.
 */
struct frame_start {
	__u16 pad; /* puts the addresses where one load each can read them */
	__u8 destination_mac[6];
	__u8 source_mac[6];
	__be16 ethertype;
	struct ipv4_header ipv4;
};
_Static_assert(sizeof(struct frame_start) == 2 + ETH_HLEN + sizeof(struct ipv4_header), "no gaps");

/* Copies of the headers that nearly every packet has, in a map for the verifier's sake: scratch.h. */
struct headers {
	struct frame_start start;
	struct ipv6_header ipv6;
	struct tcp_header transport; /* of other protocols the first 8 bytes */
	__u32 offset;                /* of the cursor */
	struct extension_header extension;
	struct ipv4_option option;
	__u16 fragment; /* of the IPv6 fragment header: offset and flags */
	__u8 next;      /* IPv6 header */
};

#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV6_MORE_FRAGMENTS 0x0001
#define IPV6_FRAGMENT_OFFSET 0xfff8

/* RFC 791 section 3.1, with the flag "copied into fragments" of the type. */
#define IPV4_OPTION_END 0
#define IPV4_OPTION_NOP 1
#define IPV4_OPTION_LOOSE_ROUTE 131
#define IPV4_OPTION_STRICT_ROUTE 137
#define IPV4_OPTIONS_MAX 40

#define VLAN_ID_MASK 0x0fff /* IEEE 802.1Q section 9.6 */

#define TCP_HEADER_MIN 20
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

#define ICMPV6_ERROR_LAST 4
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129
#define ICMPV6_LISTENER_QUERY 130
#define ICMPV6_LISTENER_DONE 132
#define ICMPV6_ROUTER_SOLICITATION 133
#define ICMPV6_REDIRECT 137
#define ICMPV6_LISTENER_REPORT_V2 143

#define PROTOCOL_HOP_BY_HOP 0
#define PROTOCOL_ROUTING 43
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_AUTHENTICATION 51
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_NO_NEXT_HEADER 59
#define PROTOCOL_DESTINATION_OPTIONS 60
#define PROTOCOL_MOBILITY 135
#define PROTOCOL_HIP 139
#define PROTOCOL_SHIM6 140

#endif
