/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * What belongs to one CPU: the packet under judgement, and a clock. In a map rather than on the stack, since the verifier follows every
 * combination of values on the stack, but none in a map: a load takes a fraction of the time. Programs run with
 * softirqs off and one at a time on a CPU.
 */
#ifndef SLUICE_SCRATCH_H
#define SLUICE_SCRATCH_H

#include "clock.h"
#include "maps.h"
#include "packet.h"
#include "policy.h"

struct scratch {
	struct packet packet;
	struct judgement judgement;
	/* What follows is not zeroed. */
	struct headers headers;
	struct packet quoted; /* by the packet, an ICMP error */
	struct conntrack_key key;
	int reason;
	struct event event;
	struct clock clock;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

/* Packet and judgement are zeroed. */
static __always_inline struct scratch *scratch_get(void)
{
	__u32 zero = 0;
	struct scratch *element = bpf_map_lookup_elem(&scratch, &zero);

	if (element) {
		__builtin_memset(&element->packet, 0, sizeof(element->packet));
		__builtin_memset(&element->judgement, 0, sizeof(element->judgement));
	}
	return element;
}

#endif
