//! The agent as a whole, over real sockets: what comes in, what goes out, what it tells, how it stops.

mod admin;
mod export;
mod hold;
mod join;
mod own_spans;
mod process;
mod receive;
mod support;
mod upstream;
