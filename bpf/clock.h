/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SLUICE_CLOCK_H
#define SLUICE_CLOCK_H

#include "maps.h"

/* Exact to one tick (1 to 10 ms), which is plenty for timeouts of seconds. */
static __always_inline __u64 clock_now_ns(void)
{
	__u64 jiffies = bpf_jiffies64();
	__u32 zero = 0;
	struct clock *element = bpf_map_lookup_elem(&clock, &zero);

	if (!element)
		return bpf_ktime_get_ns();
	if (element->jiffies != jiffies) {
		element->now_ns = bpf_ktime_get_ns();
		element->jiffies = jiffies;
	}
	return element->now_ns;
}

#endif
