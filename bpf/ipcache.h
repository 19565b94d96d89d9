/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
#ifndef SLUICE_IPCACHE_H
#define SLUICE_IPCACHE_H

#include "maps.h"

/* An address nobody told us about is outside the cluster. */
static __always_inline __u32 ipcache_lookup(__u8 family, const struct address *address)
{
	struct ipcache_key key = {.family = family, .address = *address};
	struct ipcache_value *value;

	key.prefix_len = IPCACHE_EXACT_BITS + (family == FAMILY_IPV4 ? 32 : 128);
	value = bpf_map_lookup_elem(&ipcache, &key);
	return value ? value->identity : IDENTITY_WORLD;
}

#endif
