//! Children of labelled metrics, resolved once: the hot path indexes and adds.

use crate::metrics::catalogue::{Entry, Kind};
use crate::metrics::label::Label;
use crate::topology::ServerId;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};
use std::marker::PhantomData;
use std::sync::Arc;

/// One child for each value of a label.
#[derive(Debug, Clone)]
pub struct ByLabel<L, M> {
    children: Box<[M]>,
    label: PhantomData<L>,
}

impl<L: Label, M> ByLabel<L, M> {
    /// One child for each value.
    fn try_new(child: impl FnMut(&L) -> prometheus::Result<M>) -> prometheus::Result<Self> {
        let children = L::ALL.iter().map(child).collect::<prometheus::Result<_>>()?;
        Ok(Self { children, label: PhantomData })
    }

    /// The child of a value; always there.
    pub fn get(&self, label: L) -> Option<&M> {
        self.children.get(label.index())
    }
}

impl<L: Label> ByLabel<L, IntCounter> {
    /// Counts one.
    pub fn inc(&self, label: L) {
        if let Some(child) = self.get(label) {
            child.inc();
        }
    }
}

impl<L: Label> ByLabel<L, Histogram> {
    /// Notes a duration, in seconds.
    pub fn observe(&self, label: L, seconds: f64) {
        if let Some(child) = self.get(label) {
            child.observe(seconds);
        }
    }
}

impl<L: Label> ByLabel<L, IntGauge> {
    /// Sets a level.
    pub fn set(&self, label: L, level: i64) {
        if let Some(child) = self.get(label) {
            child.set(level);
        }
    }
}

/// One child for each configured server.
#[derive(Debug, Clone)]
pub struct ByServer<M> {
    children: Box<[M]>,
}

impl<M> ByServer<M> {
    /// The child of a server; `None` only for an id of another configuration.
    pub fn get(&self, server: ServerId) -> Option<&M> {
        self.children.get(server.index())
    }
}

/// Builds metrics out of their entries and registers them.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    pub registry: &'a Registry,
    pub servers: &'a [Arc<str>],
}

impl Builder<'_> {
    pub(super) fn int_counter(&self, entry: &Entry) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::with_opts(opts(entry))?)
    }

    pub(super) fn counter(&self, entry: &Entry) -> prometheus::Result<Counter> {
        self.register(Counter::with_opts(opts(entry))?)
    }

    pub(super) fn int_gauge(&self, entry: &Entry) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::with_opts(opts(entry))?)
    }

    pub(super) fn gauge(&self, entry: &Entry) -> prometheus::Result<Gauge> {
        self.register(Gauge::with_opts(opts(entry))?)
    }

    pub(super) fn histogram(&self, entry: &Entry) -> prometheus::Result<Histogram> {
        self.register(Histogram::with_opts(histogram_opts(entry))?)
    }

    pub(super) fn int_counters(&self, entry: &Entry) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(opts(entry), entry.labels)?)
    }

    pub(super) fn int_gauges(&self, entry: &Entry) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(opts(entry), entry.labels)?)
    }

    pub(super) fn gauges(&self, entry: &Entry) -> prometheus::Result<GaugeVec> {
        self.register(GaugeVec::new(opts(entry), entry.labels)?)
    }

    pub(super) fn histograms(&self, entry: &Entry) -> prometheus::Result<HistogramVec> {
        self.register(HistogramVec::new(histogram_opts(entry), entry.labels)?)
    }

    /// One child a server.
    pub(super) fn by_server<B: MetricVecBuilder>(
        &self,
        vec: &MetricVec<B>,
    ) -> prometheus::Result<ByServer<B::M>> {
        let children = self.servers.iter().map(|name| vec.get_metric_with_label_values(&[&**name]));
        Ok(ByServer { children: children.collect::<prometheus::Result<_>>()? })
    }

    /// One child for each server and value.
    pub(super) fn by_server_and<L: Label, B: MetricVecBuilder>(
        &self,
        vec: &MetricVec<B>,
    ) -> prometheus::Result<ByServer<ByLabel<L, B::M>>> {
        let children = self.servers.iter().map(|name| {
            ByLabel::try_new(|label: &L| vec.get_metric_with_label_values(&[&**name, label.text()]))
        });
        Ok(ByServer { children: children.collect::<prometheus::Result<_>>()? })
    }

    fn register<C: Collector + Clone + 'static>(&self, metric: C) -> prometheus::Result<C> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

/// One child for each value.
pub(super) fn by_label<L: Label, B: MetricVecBuilder>(
    vec: &MetricVec<B>,
) -> prometheus::Result<ByLabel<L, B::M>> {
    ByLabel::try_new(|label: &L| vec.get_metric_with_label_values(&[label.text()]))
}

/// One child for each pair of values.
pub(super) fn by_labels<A: Label, L: Label, B: MetricVecBuilder>(
    vec: &MetricVec<B>,
) -> prometheus::Result<ByLabel<A, ByLabel<L, B::M>>> {
    ByLabel::try_new(|first: &A| {
        ByLabel::try_new(|second: &L| {
            vec.get_metric_with_label_values(&[first.text(), second.text()])
        })
    })
}

fn opts(entry: &Entry) -> Opts {
    Opts::new(entry.name, entry.help)
}

fn histogram_opts(entry: &Entry) -> HistogramOpts {
    let opts = HistogramOpts::new(entry.name, entry.help);
    match entry.kind {
        Kind::Histogram(bounds) => opts.buckets(bounds.to_vec()),
        Kind::Counter | Kind::Gauge => opts,
    }
}
