//! Sources of identity that are asked or watched, each in a task of its own: what they tell goes over one bounded queue to
//! the enricher. Losing one of them lowers what is known, never what is forwarded.

mod grpc;
pub mod kubernetes;
mod pod_resources;
mod runtime;
mod socket_file;

use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::pod_resources::Kubelet;
use self::runtime::Runtime;
use super::{News, Question};
use crate::config::Config;
use crate::observe::Metrics;

/// Questions to one source that wait. What finds it full is not asked: a burst of this many is answered late as it is.
const QUESTIONS_MAX: usize = 64;

/// The running sources. Dropping it stops them.
#[derive(Debug)]
pub struct Sources {
    _tasks: JoinSet<()>,
    /// `None` if the runtime is not to be asked.
    runtime: Option<mpsc::Sender<String>>,
    /// `None` if kubelet is not to be asked.
    kubelet: Option<mpsc::Sender<Question>>,
}

impl Sources {
    /// Starts the sources that `config` asks for; they tell `news` and wait while it is full. Those that call a watched
    /// socket begin when `probes_settled` is over.
    pub fn spawn(
        config: &Config,
        news: &mpsc::Sender<News>,
        metrics: &Metrics,
        probes_settled: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let mut tasks = JoinSet::new();
        if kubernetes::is_wanted(config.enrich.kubernetes) {
            let pace = kubernetes::Pace::default();
            tasks.spawn(kubernetes::run(config.enrich.clone(), pace, news.clone(), metrics.clone()));
        }
        let settled = probes_settled.shared();
        let (runtime, questions) = mpsc::channel(QUESTIONS_MAX);
        let runtime = Runtime::new(config, news.clone(), questions).map(|source| {
            tasks.spawn(settled.clone().then(|()| source.run()));
            runtime
        });
        let (kubelet, questions) = mpsc::channel(QUESTIONS_MAX);
        let kubelet = Kubelet::new(config, news.clone(), questions).map(|source| {
            tasks.spawn(settled.then(|()| source.run()));
            kubelet
        });
        Self { _tasks: tasks, runtime, kubelet }
    }

    /// Asks whoever can tell; the answer comes as news. False if it was not asked because too much waits.
    pub fn ask(&self, question: Question) -> bool {
        match question {
            Question::Container { id } => self.runtime.as_ref().is_none_or(|runtime| runtime.try_send(id).is_ok()),
            Question::Device { .. } | Question::Claim { .. } => {
                self.kubelet.as_ref().is_none_or(|kubelet| kubelet.try_send(question).is_ok())
            }
        }
    }
}
