/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * A reply in several fragments may arrive with a later fragment first, and nothing in that says which connection it belongs
 * to. It passes when the endpoint had an allowed connection with its sender lately: nothing can be put together without a
 * first fragment, and that is judged by its ports.
 */
#ifndef SLUICE_CORRESPONDENT_H
#define SLUICE_CORRESPONDENT_H

#include "maps.h"

/* Longer than receivers wait for fragments, so that a reply may take its time. */
#define CORRESPONDENT_TIMEOUT_NS (120 * 1000000000ULL)

/* `direction`: of the packets to let through. */
static __always_inline void correspondent_key_of(struct correspondent_key *key, const struct conntrack_key *flow,
						 __u8 direction)
{
	key->endpoint_id = flow->endpoint_id;
	key->address = flow->remote_address;
	key->family = flow->family;
	key->protocol = flow->protocol;
	key->direction = direction;
	key->pad = 0;
}

/* A connection is new, was judged again, or goes on; called at most every CONNTRACK_REFRESH_NS for one that goes on. */
static __always_inline void correspondent_note(const struct conntrack_key *flow, __u8 direction, __u32 revision,
					       __u64 now_ns)
{
	struct correspondent value = {.seen_ns = now_ns, .revision = revision};
	struct correspondent_key key;

	correspondent_key_of(&key, flow, direction);
	bpf_map_update_elem(&correspondents, &key, &value, BPF_ANY);
}

static __always_inline int correspondent_known(const struct conntrack_key *flow, __u8 direction, __u32 revision,
					       __u64 now_ns)
{
	struct correspondent *value;
	struct correspondent_key key;

	correspondent_key_of(&key, flow, direction);
	value = bpf_map_lookup_elem(&correspondents, &key);
	return value && value->revision == revision &&
	       (__s64)(now_ns - value->seen_ns) <= (__s64)CORRESPONDENT_TIMEOUT_NS;
}

#endif
