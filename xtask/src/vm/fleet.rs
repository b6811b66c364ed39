//! Several machines at a time: each keeps one processor of this machine busy.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Result;

use super::boot::{self, Work};
use super::kernels::{Boot, Kernel};
use crate::sh;

/// A machine that is to be booted.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) boot: &'a Boot,
    pub(super) image: PathBuf,
    pub(super) initramfs: &'a Path,
}

/// What a worker tells: which machine is on, or what it said until it went off.
enum News<'a> {
    On(String),
    Off(Machine<'a>, Result<String>),
}

/// Boots all of them, as many at a time as there are processors. `off` hears of each as soon as it has ended, and what it said; after an error
/// no other is booted.
pub(super) fn boot_all<'a>(
    machines: Vec<Machine<'a>>,
    work: Work,
    folder: &Path,
    mut off: impl FnMut(&Machine<'a>, &str) -> Result<()>,
) -> Result<()> {
    let at_a_time = thread::available_parallelism().map_or(1, usize::from);
    let title = format!("Booting {} machines, {at_a_time} at a time", machines.len());
    sh::heading(&title);
    let mut progress = sh::Progress::start(&title);
    let waiting = Mutex::new(VecDeque::from(machines));
    let mut outcome = Ok(());
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(0);
        for _ in 0..at_a_time {
            let (sender, waiting) = (sender.clone(), &waiting);
            scope.spawn(move || boot_next(waiting, work, folder, &sender));
        }
        drop(sender);
        let mut on = Vec::new();
        loop {
            match receiver.recv_timeout(sh::SPIN) {
                Ok(News::On(title)) => on.push(title),
                Ok(News::Off(machine, said)) => {
                    on.retain(|title| *title != machine.title());
                    progress.clear();
                    let judged = said.and_then(|said| off(&machine, &said));
                    if judged.is_err() {
                        waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    }
                    outcome = std::mem::replace(&mut outcome, Ok(())).and(judged);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            progress.tick(Some(&on.join(", ")));
        }
        progress.clear();
    });
    outcome
}

/// Boots one machine after the other while there are any.
fn boot_next<'a>(waiting: &Mutex<VecDeque<Machine<'a>>>, work: Work, folder: &Path, news: &SyncSender<News<'a>>) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(machine) = next else { return };
        let told = news.send(News::On(machine.title())).and_then(|()| {
            let said = boot::run(&machine, work, folder);
            news.send(News::Off(machine, said))
        });
        if told.is_err() {
            return; // nobody listens any more
        }
    }
}

impl Machine<'_> {
    pub(super) fn title(&self) -> String {
        self.boot.title(self.kernel)
    }
}
