//! The recorder from outside: calls, spans and execs in, timelines out.

mod evidence;
mod limits;
mod order;
mod recorded_pods;
mod recording;
mod starts;
mod waits;
