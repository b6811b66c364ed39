//! Reads one kernel variable for the agent, before anything else is attached: whether this kernel preempts.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::kernel::read;
use crate::maps::COUNTERS;

/// The variable's address, 0 = none.
#[unsafe(no_mangle)]
pub static VARIABLE: u64 = 0;

/// Marks a value as read.
const KNOWN: u64 = 1 << 32;

/// match-proto: `void sys_enter(struct pt_regs *regs, long id)`
#[btf_tracepoint(function = "sys_enter")]
pub fn read_variable(_: BtfTracePointContext) -> i32 {
    // SAFETY: reads an initialised static; volatile because it is set after compilation.
    let address = unsafe { core::ptr::read_volatile(&raw const VARIABLE) };
    let (Some(counters), Some(value)) = (COUNTERS.get_ptr_mut(0), read::<u32>(address)) else { return 0 };
    // SAFETY: a field of a map value.
    unsafe { (&raw mut (*counters).variable).write_volatile(KNOWN | value as u64) };
    0
}
