//! The commands that look into a running agent, against an admin listener that the tests play.

mod commands;
mod timelines;
mod waterfall;
