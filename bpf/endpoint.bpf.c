/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * The two programs on each of an endpoint's interfaces, inside the pod's network namespace. Wiring only.
 *
 * Loaded once for each endpoint, with its id as a constant: ifindexes are not unique among namespaces. They need
 * kernel 5.10 and do not know how they are attached (tcx, or cls_bpf on clsact): both understand the verdicts.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "events.h"
#include "fragment.h"
#include "metrics.h"
#include "verdict.h"

/* linux/bpf.h of kernel 6.6; TC_ACT_UNSPEC and TC_ACT_SHOT for cls_bpf. NEXT lets later filters run: the redirect to
 * the ifb that shapes ingress comes after us. */
#define TCX_NEXT -1
#define TCX_DROP 2

volatile const __u32 endpoint_id;

static __always_inline int enforce(struct __sk_buff *skb, __u8 direction)
{
	struct scratch *scratch = scratch_get();
	int reason;

	if (!scratch)
		return TCX_DROP;
	/* Through memory, so that the verifier follows what comes next once, not once for each way to get here. */
	scratch->reason = verdict(skb, scratch, endpoint_id, direction);
	barrier();
	reason = scratch->reason;
	if (scratch->packet.first_fragment)
		fragment_record(endpoint_id, &scratch->packet, direction, !is_pass(reason),
				clock_now_ns(&scratch->clock));
	event_report(skb, scratch, endpoint_id, direction, reason);
	metrics_count(skb, endpoint_id, direction, reason);
	return is_pass(reason) ? TCX_NEXT : TCX_DROP;
}

/* On the egress hook: what the pod sends. */
SEC("tc/from_endpoint")
int from_endpoint(struct __sk_buff *skb)
{
	return enforce(skb, DIRECTION_EGRESS);
}

/* On the ingress hook: what the pod receives. */
SEC("tc/to_endpoint")
int to_endpoint(struct __sk_buff *skb)
{
	return enforce(skb, DIRECTION_INGRESS);
}

/* bpf_skb_load_bytes() and bpf_ktime_get_ns() are for programs that say so. */
char _license[] SEC("license") = "Dual BSD/GPL";
