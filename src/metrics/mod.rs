//! What graphs and alarms are made of: Swift's own names to a statsd server ([`statsd`]); and what `agent status` knows, as
//! text that Prometheus reads, over HTTP from a daemon ([`endpoint`]) and in a file for node_exporter ([`textfile`]).
//!
//! There is one table of all that is told ([`table`]), and text is made from it and from nothing else ([`exposition`]), so
//! that nothing is told that has no row there. What a row tells is read from the facts of [`status`](crate::status): nothing
//! is counted here. `docs/metrics.md` has the same table, which a test sees to.
//!
//! None of this may make a pass worse or wait: whatever takes time is done by threads of its own, and what fails is told
//! once and passed by.

pub mod endpoint;
pub mod exposition;
pub mod pages;
pub mod samples;
pub mod statsd;
pub mod table;
pub mod textfile;

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::{error, info, warn};

use crate::node::Node;
use crate::obstacle::Obstacle;
use crate::pass::{Leg, Observer, RoundOver};
use crate::ring::Device;
use crate::stop::Stop;
use crate::tally::Tally;
use endpoint::Limits;
use pages::Pages;
use statsd::Statsd;
use textfile::Textfile;

/// Everything that is told of a node, for as long as this lives.
#[derive(Debug)]
pub struct Metrics {
    statsd: Option<Statsd>,
    textfile: Option<Textfile>,
    over: Stop,
    endpoint: Option<thread::JoinHandle<()>>,
}

impl Metrics {
    /// A daemon's: as the conf asks for it. Whatever of it cannot be had is logged.
    pub fn of_daemon(node: &Arc<Node>) -> Metrics {
        let options = &node.config.agent;
        let mut metrics = Metrics::of_pass(node);
        if let Some(port) = options.metrics_port {
            let pages = Arc::new(Pages::new(node.clone()));
            match endpoint::bind(port) {
                Ok(listener) => metrics.endpoint = metrics.serve(listener, pages),
                Err(error) => error!(
                    "cannot answer Prometheus at {}:{port}: {error}; is agent_metrics_port taken by another? All else \
                     goes on",
                    endpoint::ADDRESS
                ),
            }
        }
        metrics
    }

    /// Those of a single pass: nobody is answered.
    pub fn of_pass(node: &Arc<Node>) -> Metrics {
        let config = &node.config;
        let statsd = Statsd::start(&config.statsd, &config.log.name);
        let textfile =
            config.agent.textfile_path.clone().map(|path| Textfile::keep(path, Pages::new(node.clone())));
        Metrics { statsd, textfile, over: Stop::default(), endpoint: None }
    }

    fn serve(&self, listener: TcpListener, pages: Arc<Pages>) -> Option<thread::JoinHandle<()>> {
        let over = self.over.clone();
        let address = listener.local_addr().map_or_else(|_| String::new(), |address| address.to_string());
        let serve = move || endpoint::serve(&listener, &over, Limits::USUAL, &move || pages.of_late());
        match thread::Builder::new().name("metrics".into()).stack_size(STACK_BYTES).spawn(serve) {
            Ok(thread) => {
                info!("metrics at http://{address}/metrics");
                Some(thread)
            }
            Err(error) => {
                warn!("no thread to answer Prometheus with: {error}");
                None
            }
        }
    }

    /// Sees what a pass does, and hands it on to `inner`.
    pub fn observe<'a>(&'a self, inner: &'a dyn Observer) -> Observed<'a> {
        Observed { statsd: self.statsd.as_ref(), inner }
    }

    /// A pass of a daemon is over, and what it came to is kept. The file is written soon.
    pub fn pass_over(&self) {
        if let Some(textfile) = &self.textfile {
            textfile.write_soon();
        }
    }

    /// The only pass of this process is over: what is still to be told is told now.
    pub fn end(self) {
        if let Some(textfile) = &self.textfile {
            textfile.write();
        }
    }
}

impl Metrics {
    /// Closes the port.
    pub fn close(&mut self) {
        self.over.wish();
        if let Some(thread) = self.endpoint.take() {
            // It only panics if its own code is wrong, and has said so on standard error then.
            let _ = thread.join();
        }
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.close();
    }
}

/// A pass that is told of as it goes.
pub struct Observed<'a> {
    statsd: Option<&'a Statsd>,
    inner: &'a dyn Observer,
}

impl Observer for Observed<'_> {
    fn progress(&self, tally: &Tally, devices_done: usize, devices: usize, database: &str) {
        self.inner.progress(tally, devices_done, devices, database);
    }

    fn foretell(&self, line: String) {
        self.inner.foretell(line);
    }

    fn enters(&self, device: &Device, leg: Leg) {
        self.inner.enters(device, leg);
    }

    fn hindered(&self, obstacle: Obstacle) {
        self.inner.hindered(obstacle);
    }

    fn counted(&self, device: &Device, counted: &Tally, took: Option<Duration>) {
        if let Some(statsd) = self.statsd {
            statsd.count(&device.name, counted, took);
        }
        self.inner.counted(device, counted, took);
    }

    fn gone_round(&self, round: &RoundOver<'_>) {
        self.inner.gone_round(round);
    }
}

/// Threads here keep little; a name service may want more.
const STACK_BYTES: usize = 512 << 10;
