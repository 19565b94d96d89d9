/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SLUICE_METRICS_H
#define SLUICE_METRICS_H

#include "maps.h"

/* Per CPU, hence without atomics. When the map is full the verdict stands and only the count is lost. */
static __always_inline void metrics_count(struct __sk_buff *skb, __u32 endpoint_id, __u8 direction, __u16 reason)
{
	struct metrics_key key = {.endpoint_id = endpoint_id, .reason = reason, .direction = direction};
	struct metrics_value *value = bpf_map_lookup_elem(&metrics, &key);
	struct metrics_value first = {.packets = 1, .bytes = skb->len};

	if (value) {
		value->packets += 1;
		value->bytes += skb->len;
		return;
	}
	bpf_map_update_elem(&metrics, &key, &first, BPF_ANY);
}

#endif
