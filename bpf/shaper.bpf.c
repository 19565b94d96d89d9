/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Which of a limit's two HTB classes a packet waits in, so that a flow that sends little never waits behind one that would
 * fill the limit. A flow is bulk once it has sent more than its allowance, which comes back at a small part of the limit's
 * rate. It stays bulk until it has been silent for so long that its queue is empty: a packet that overtook its predecessors
 * would be taken for a loss.
 *
 * A classifier for cls_bpf, not direct-action: returns the class. One for each limit, with maps of its own.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define FLOWS 1024
#define SILENCE_NS 250000000ULL

/* Changed while packets pass; a packet that sees half of a change is put right by the next. */
struct flow_settings {
	/* In which 1024 bytes of an allowance come back. */
	__u64 ns_per_kilobyte;
	__u32 allowance_bytes;
	__u32 sparse_class;
	__u32 bulk_class;
	__u32 pad;
};

struct flow {
	__u64 seen_ns;
	__u32 sent_bytes;
	__u32 bulk;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_settings);
} flow_settings SEC(".maps");

/*
 * By hash, each flow in two places, one in either half: it is bulk when both say so. What it sends counts in both, and a bulk flow
 * that it meets in one of them does not make it bulk: beside eight such flows, 1 flow in 16,000 meets one in both, where 1 in 128
 * would meet one in a single place. Written under the qdisc's lock.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * FLOWS);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

static __always_inline __u32 place_is_bulk(const struct flow_settings *settings, __u32 place, __u64 now, __u32 len)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, &place);
	__u64 elapsed, back;

	if (!flow)
		return 1; /* Never. */
	elapsed = now - flow->seen_ns;
	flow->seen_ns = now;
	if (elapsed > SILENCE_NS) {
		flow->bulk = 0;
		flow->sent_bytes = 0;
	}
	back = elapsed * 1024 / settings->ns_per_kilobyte;
	flow->sent_bytes = flow->sent_bytes > back ? flow->sent_bytes - back : 0;
	flow->sent_bytes += len;
	if (flow->sent_bytes > settings->allowance_bytes)
		flow->bulk = 1;
	return flow->bulk;
}

SEC("tc/flow_class")
int flow_class(struct __sk_buff *skb)
{
	__u32 first = 0, hash = bpf_get_hash_recalc(skb);
	struct flow_settings *settings = bpf_map_lookup_elem(&flow_settings, &first);
	__u64 now = bpf_ktime_get_ns();

	/* Never; 0 is the default class, which is that of bulk. */
	if (!settings)
		return 0;
	/* Both are asked, since both count. */
	if (place_is_bulk(settings, hash & (FLOWS - 1), now, skb->len) &
	    place_is_bulk(settings, FLOWS + ((hash >> 16) & (FLOWS - 1)), now, skb->len))
		return settings->bulk_class;
	return settings->sparse_class;
}

char _license[] SEC("license") = "Dual BSD/GPL";
