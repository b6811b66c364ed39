//! Every type and limit that the kernel programs and the agent share.
//!
//! All types are `repr(C)`, hold no padding and no `bool`, and have their size asserted, so that both sides read the same bytes.

#![no_std]
#![forbid(unsafe_code)]

pub mod counters;
pub mod event;
pub mod layout;
pub mod limits;
pub mod task;
