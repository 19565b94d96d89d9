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

/* By hash; flows whose hashes meet are one. Written under the qdisc's lock. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FLOWS);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

SEC("tc/flow_class")
int flow_class(struct __sk_buff *skb)
{
	__u32 first = 0, slot = bpf_get_hash_recalc(skb) & (FLOWS - 1);
	struct flow_settings *settings = bpf_map_lookup_elem(&flow_settings, &first);
	struct flow *flow = bpf_map_lookup_elem(&flows, &slot);
	__u64 now = bpf_ktime_get_ns(), elapsed, back;

	/* Never; 0 is the default class, which is that of bulk. */
	if (!settings || !flow)
		return 0;
	elapsed = now - flow->seen_ns;
	flow->seen_ns = now;
	if (elapsed > SILENCE_NS) {
		flow->bulk = 0;
		flow->sent_bytes = 0;
	}
	back = elapsed * 1024 / settings->ns_per_kilobyte;
	flow->sent_bytes = flow->sent_bytes > back ? flow->sent_bytes - back : 0;
	flow->sent_bytes += skb->len;
	if (flow->sent_bytes > settings->allowance_bytes)
		flow->bulk = 1;
	return flow->bulk ? settings->bulk_class : settings->sparse_class;
}

char _license[] SEC("license") = "Dual BSD/GPL";
