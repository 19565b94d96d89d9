/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * Where the packet under judgement is described. In a map rather than on the stack, since the verifier follows every
 * combination of values on the stack, but none in a map: a load takes a fraction of the time. Programs run with
 * softirqs off and one at a time on a CPU.
 */
#ifndef SLUICE_SCRATCH_H
#define SLUICE_SCRATCH_H

#include "maps.h"
#include "parse.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} scratch SEC(".maps");

/* Zeroed. */
static __always_inline struct packet *scratch_packet(void)
{
	__u32 zero = 0;
	struct packet *packet = bpf_map_lookup_elem(&scratch, &zero);

	if (packet)
		__builtin_memset(packet, 0, sizeof(*packet));
	return packet;
}

#endif
