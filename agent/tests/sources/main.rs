//! Sources of identity against servers on real unix sockets.

mod runtime;
mod server;
