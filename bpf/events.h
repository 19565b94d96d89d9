/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0 */
/*
 * What user space is told about verdicts, beyond the counters: an event for each drop, and for connections that policy
 * decided about. User space polls, so nobody is woken up.
 */
#ifndef SLUICE_EVENTS_H
#define SLUICE_EVENTS_H

#include "clock.h"
#include "ipcache.h"
#include "maps.h"
#include "scratch.h"

/*
 * Each endpoint may write this many events of a kind in a window of 2^30 ns (1.07 s), so that one that is scanned does not
 * hide the others. docs/reference/limits.md.
 */
#define EVENTS_PER_WINDOW 256
#define EVENT_WINDOW_SHIFT 30

/* Two CPUs may count at the same time and both write: a few events more, accepted. */
static __always_inline int event_within_budget(__u32 endpoint_id, __u8 kind, __u64 now_ns)
{
	struct event_budget_key key = {.endpoint_id = endpoint_id, .kind = kind};
	struct event_budget first = {.window = now_ns >> EVENT_WINDOW_SHIFT, .written = 1};
	struct event_budget *budget = bpf_map_lookup_elem(&event_budgets, &key);

	if (!budget) {
		bpf_map_update_elem(&event_budgets, &key, &first, BPF_ANY);
		return 1;
	}
	if (budget->window != first.window) {
		budget->window = first.window;
		budget->written = 0;
	}
	if (budget->written >= EVENTS_PER_WINDOW)
		return 0;
	budget->written += 1;
	return 1;
}

static __always_inline void event_lost(int buffer_full)
{
	__u32 zero = 0;
	struct event_losses *losses = bpf_map_lookup_elem(&event_losses, &zero);

	if (losses && buffer_full)
		losses->buffer_full += 1;
	else if (losses)
		losses->over_budget += 1;
}

static __always_inline void event_write(struct __sk_buff *skb, struct scratch *scratch, __u32 endpoint_id,
					__u8 direction, __u8 kind, __u8 reason)
{
	const struct packet *packet = &scratch->packet;
	struct event *event = &scratch->event;
	__u64 now_ns = bpf_ktime_get_ns();

	if (!event_within_budget(endpoint_id, kind, now_ns)) {
		event_lost(0);
		return;
	}
	event->time_ns = now_ns;
	event->endpoint_id = endpoint_id;
	event->rule_id = scratch->judgement.rule_id;
	event->identity = scratch->judgement.identity;
	event->length = skb->len;
	event->source = packet->source;
	event->destination = packet->destination;
	event->source_port = packet->source_port;
	event->destination_port = packet->destination_port;
	event->family = packet->family;
	event->protocol = packet->protocol;
	event->direction = direction;
	event->kind = kind;
	event->reason = reason;
	if (!event->identity && packet->family)
		event->identity = ipcache_lookup(packet->family, direction == DIRECTION_EGRESS ? &packet->destination
											       : &packet->source);
	if (bpf_ringbuf_output(&events, event, sizeof(*event), BPF_RB_NO_WAKEUP))
		event_lost(1);
}

/* Deciding about a connection is rare beside its packets. When the map is full, only the count is lost. */
static __always_inline void rule_count(const struct judgement *judgement, __u32 endpoint_id)
{
	struct rule_counter_key key = {
	    .endpoint_id = endpoint_id,
	    .rule_id = judgement->rule_id,
	    .direction = judgement->direction,
	};
	struct rule_counter *counter = bpf_map_lookup_elem(&rule_counters, &key);
	struct rule_counter first = {.decisions = 1};

	if (counter)
		__sync_fetch_and_add(&counter->decisions, 1);
	else
		bpf_map_update_elem(&rule_counters, &key, &first, BPF_NOEXIST);
}

static __always_inline int events_want_allow(void)
{
	__u32 zero = 0;
	struct config *element = bpf_map_lookup_elem(&config, &zero);

	return element && element->flags & CONFIG_EVENT_ALLOW;
}

/* `reason` is the verdict. A packet of a known connection that passes is not reported. */
static __always_inline void event_report(struct __sk_buff *skb, struct scratch *scratch, __u32 endpoint_id,
					 __u8 direction, int reason)
{
	const struct judgement *judgement = &scratch->judgement;
	__u8 kind;

	if (judgement->asked)
		rule_count(judgement, endpoint_id);
	if (reason == REASON_AUDIT && judgement->asked)
		kind = EVENT_AUDIT;
	else if (reason != REASON_FORWARDED && reason != REASON_AUDIT)
		kind = EVENT_DROP;
	else if (reason == REASON_FORWARDED && judgement->opened && events_want_allow())
		kind = EVENT_ALLOW;
	else
		return;
	event_write(skb, scratch, endpoint_id, direction, kind, reason);
}

#endif
