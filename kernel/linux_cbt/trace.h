/* SPDX-License-Identifier: GPL-2.0-only */
/* Tracepoints: reserve, commit, mode and tag. */
/* clang-format off */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM herald_cbt

#if !defined(CBT_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define CBT_TRACE_H

#include <linux/tracepoint.h>

TRACE_EVENT(cbt_reserve,
	TP_PROTO(u32 major, u32 minor, u64 slot, u64 sector, u32 sectors, u32 payload_bytes,
		 u16 kind),
	TP_ARGS(major, minor, slot, sector, sectors, payload_bytes, kind),
	TP_STRUCT__entry(
		__field(u32, major)
		__field(u32, minor)
		__field(u64, slot)
		__field(u64, sector)
		__field(u32, sectors)
		__field(u32, payload_bytes)
		__field(u16, kind)
	),
	TP_fast_assign(
		__entry->major = major;
		__entry->minor = minor;
		__entry->slot = slot;
		__entry->sector = sector;
		__entry->sectors = sectors;
		__entry->payload_bytes = payload_bytes;
		__entry->kind = kind;
	),
	TP_printk("%u:%u slot %llu sector %llu+%u payload %u kind %u", __entry->major,
		  __entry->minor, __entry->slot, __entry->sector, __entry->sectors, __entry->payload_bytes,
		  __entry->kind)
);

TRACE_EVENT(cbt_commit,
	TP_PROTO(u32 major, u32 minor, u64 sector, u32 state),
	TP_ARGS(major, minor, sector, state),
	TP_STRUCT__entry(
		__field(u32, major)
		__field(u32, minor)
		__field(u64, sector)
		__field(u32, state)
	),
	TP_fast_assign(
		__entry->major = major;
		__entry->minor = minor;
		__entry->sector = sector;
		__entry->state = state;
	),
	TP_printk("%u:%u sector %llu state %u", __entry->major, __entry->minor, __entry->sector,
		  __entry->state)
);

TRACE_EVENT(cbt_mode,
	TP_PROTO(u32 major, u32 minor, u32 before, u32 after, u32 cause),
	TP_ARGS(major, minor, before, after, cause),
	TP_STRUCT__entry(
		__field(u32, major)
		__field(u32, minor)
		__field(u32, before)
		__field(u32, after)
		__field(u32, cause)
	),
	TP_fast_assign(
		__entry->major = major;
		__entry->minor = minor;
		__entry->before = before;
		__entry->after = after;
		__entry->cause = cause;
	),
	TP_printk("%u:%u mode %u to %u cause %u", __entry->major, __entry->minor, __entry->before,
		  __entry->after, __entry->cause)
);

TRACE_EVENT(cbt_tag,
	TP_PROTO(u32 major, u32 minor, u64 slot, u64 time_ns, u32 result),
	TP_ARGS(major, minor, slot, time_ns, result),
	TP_STRUCT__entry(
		__field(u32, major)
		__field(u32, minor)
		__field(u64, slot)
		__field(u64, time_ns)
		__field(u32, result)
	),
	TP_fast_assign(
		__entry->major = major;
		__entry->minor = minor;
		__entry->slot = slot;
		__entry->time_ns = time_ns;
		__entry->result = result;
	),
	TP_printk("%u:%u slot %llu time %llu result %u", __entry->major, __entry->minor,
		  __entry->slot, __entry->time_ns, __entry->result)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
