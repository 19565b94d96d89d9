/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SLUICE_CLOCK_H
#define SLUICE_CLOCK_H

#include <bpf/bpf_helpers.h>
#include "abi.h"

/*
 * The time as of this tick. Reading the clock for each packet costs 45 ns (measured); ticks are a cheap way to tell that
 * it is time to read it again.
 */
struct clock {
	__u64 jiffies;
	__u64 now_ns; /* CLOCK_MONOTONIC */
};

/* Exact to one tick (1 to 10 ms), which is plenty for timeouts of seconds. `clock` is this CPU's. */
static __always_inline __u64 clock_now_ns(struct clock *clock)
{
	__u64 jiffies = bpf_jiffies64();

	if (clock->jiffies != jiffies) {
		clock->now_ns = bpf_ktime_get_ns();
		clock->jiffies = jiffies;
	}
	return clock->now_ns;
}

#endif
