/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Other ways to limit bandwidth, which the benchmark puts beside ours (bench/bandwidth-*.ts). No part of the product.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define TCX_NEXT -1
#define TCX_DROP 2
#define SECOND_NS 1000000000ULL
/* What each segment after a packet's first one adds on the wire: Ethernet, IPv4, TCP with timestamps. */
#define SEGMENT_HEADERS 66
/* Cilium's: a packet whose time would come later than this is dropped. */
#define HORIZON_NS (2 * SECOND_NS)
#define LEAVES 64

volatile const __u64 rate_bytes;

struct bucket {
	__u64 time_ns;
	__u64 tokens;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bucket);
} buckets SEC(".maps");

static __always_inline struct bucket *bucket_get(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&buckets, &key);
}

static __always_inline __u64 wire_bytes(struct __sk_buff *skb)
{
	return skb->len + (skb->gso_segs > 1 ? (skb->gso_segs - 1) * SEGMENT_HEADERS : 0);
}

/* Earliest departure time: delays each packet until those before it have gone at the rate; fq keeps it that long. */
SEC("tc/edt")
int edt(struct __sk_buff *skb)
{
	struct bucket *bucket = bucket_get();
	__u64 now = bpf_ktime_get_ns(), at;

	if (!bucket)
		return TCX_DROP;
	at = bucket->time_ns + wire_bytes(skb) * SECOND_NS / rate_bytes;
	if (at <= now) {
		bucket->time_ns = now;
		return TCX_NEXT;
	}
	if (at - now >= HORIZON_NS)
		return TCX_DROP;
	bucket->time_ns = at;
	skb->tstamp = at;
	return TCX_NEXT;
}

/* A bucket of one second; what finds it empty is dropped. */
SEC("tc/police")
int police(struct __sk_buff *skb)
{
	struct bucket *bucket = bucket_get();
	__u64 now = bpf_ktime_get_ns(), bytes = wire_bytes(skb), elapsed;

	if (!bucket)
		return TCX_DROP;
	elapsed = now - bucket->time_ns;
	bucket->time_ns = now;
	bucket->tokens += elapsed > SECOND_NS ? rate_bytes : rate_bytes * elapsed / SECOND_NS;
	if (bucket->tokens > rate_bytes)
		bucket->tokens = rate_bytes;
	if (bucket->tokens < bytes)
		return TCX_DROP;
	bucket->tokens -= bytes;
	return TCX_NEXT;
}

/* A classifier for HTB: one of its leaves 1:1 to 1:40 (hexadecimal) by the flow's hash. */
SEC("tc/flow_leaf")
int flow_leaf(struct __sk_buff *skb)
{
	return 0x10000 | (1 + (bpf_get_hash_recalc(skb) & (LEAVES - 1)));
}

char _license[] SEC("license") = "Dual BSD/GPL";
