//! spanlet's kernel programs. See `ebpf/README.md` for the rules that hold here.
//!
//! ```text
//! mode             entry programs            shared body
//! fentry.rs        unix_stream_* (fentry) ─┐
//! kprobe.rs        unix_stream_* (kprobe) ─┼─► connection.rs ─► walk.rs ─► message.rs, plan.rs ─► batch.rs ─► emit.rs ─► ring
//! tracepoint.rs    sock_*_length           ┤     (endpoints.rs)  (frames)   (fields)
//! system_calls.rs  sys_enter, sys_exit    ─┘
//!
//! every mode       process.rs: fork, exec, exit ─► given.rs (arguments, CNI_*) ──────────────────────────► emit.rs
//! ```
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod ahead;
mod batch;
mod connection;
mod cost;
mod emit;
mod endpoints;
mod fentry;
mod frame;
mod given;
mod id;
mod iterator;
mod kernel;
mod kprobe;
mod maps;
mod mark;
mod message;
mod plan;
mod process;
mod registers;
mod socket;
mod streams;
mod system_calls;
mod tracepoint;
mod turns;
mod variable;
mod walk;
mod whole;

/// Reached by no program: the verifier refuses one that could loop here, so a panic that survives optimisation fails the load.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
