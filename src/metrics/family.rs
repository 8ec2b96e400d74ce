//! Children of labelled metrics, resolved once: the hot path indexes and adds.

use crate::metrics::catalogue::{Entry, Kind};
use crate::metrics::cells::{Level, Rows, Tally, Times};
use crate::metrics::each::{Each, Key};
use crate::metrics::label::Label;
use crate::topology::ServerId;
use prometheus::core::{Collector, Desc, MetricVec, MetricVecBuilder};
use prometheus::proto::{
    Bucket, Counter as CounterValue, Gauge as GaugeValue, Histogram as HistogramValue, LabelPair,
    Metric, MetricFamily, MetricType,
};
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

/// One child for each value of a label.
#[derive(Debug, Clone)]
pub struct ByLabel<L, M> {
    children: Arc<[M]>,
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
    pub rows: Arc<Rows>,
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

    pub(super) fn tally(&self, entry: &Entry) -> prometheus::Result<Tally> {
        let tally = Tally::first_of(&self.rows, 1);
        self.family(entry, &[vec![]], |_| Child::Tally(tally.clone()))?;
        Ok(tally)
    }

    /// A tally for each key.
    pub(super) fn tallies<K: Key>(&self, entry: &Entry) -> prometheus::Result<Each<K, Tally>> {
        let (values, count) = self.keys::<K>();
        let first = Tally::first_of(&self.rows, count);
        self.family(entry, &values, |at| Child::Tally(first.behind(at)))?;
        Ok(Each::new(first, count))
    }

    /// A level for each key.
    pub(super) fn levels<K: Key>(&self, entry: &Entry) -> prometheus::Result<Each<K, Level>> {
        let (values, count) = self.keys::<K>();
        let first = Level::first_of(&self.rows, count);
        self.family(entry, &values, |at| Child::Level(first.behind(at)))?;
        Ok(Each::new(first, count))
    }

    /// A distribution for each key.
    pub(super) fn times<K: Key>(&self, entry: &Entry) -> prometheus::Result<Each<K, Times>> {
        let (values, count) = self.keys::<K>();
        let bounds = match entry.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        };
        let first = Times::first_of(&self.rows, bounds, count);
        self.family(entry, &values, |at| Child::Times(first.behind(at)))?;
        Ok(Each::new(first, count))
    }

    /// The labels' values of each key, and how many there are.
    fn keys<K: Key>(&self) -> (Vec<Vec<&str>>, u32) {
        let values = K::values(self.servers);
        let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
        (values, count)
    }

    /// A metric with a child for each list of values; `child` is given its number.
    fn family(
        &self,
        entry: &Entry,
        values: &[Vec<&str>],
        child: impl Fn(u32) -> Child,
    ) -> prometheus::Result<()> {
        let labels = entry.labels.iter().map(|name| (*name).to_owned()).collect();
        let desc = Desc::new(entry.name.to_owned(), entry.help.to_owned(), labels, HashMap::new())?;
        let children = values.iter().zip(0..).map(|(values, at)| (pairs(entry, values), child(at)));
        let family = Family { desc, entry: *entry, children: children.collect() };
        self.registry.register(Box::new(family))
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

/// Metrics of one name whose cells the shards write, for who gathers them.
#[derive(Debug)]
struct Family {
    desc: Desc,
    entry: Entry,
    children: Vec<(Vec<LabelPair>, Child)>,
}

#[derive(Debug)]
enum Child {
    Tally(Tally),
    Level(Level),
    Times(Times),
}

/// The labels with these values.
fn pairs(entry: &Entry, values: &[&str]) -> Vec<LabelPair> {
    let pairs = entry.labels.iter().zip(values).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    let mut pairs: Vec<_> = pairs.collect();
    // In the order in which the other metrics have them.
    pairs.sort_by(|a, b| a.name().cmp(b.name()));
    pairs
}

impl Collector for Family {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(self.entry.name.to_owned());
        family.set_help(self.entry.help.to_owned());
        family.set_field_type(match self.entry.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram(_) => MetricType::HISTOGRAM,
        });
        let metrics = self.children.iter().map(|(labels, child)| {
            let mut metric = Metric::from_label(labels.clone());
            child.write(&mut metric);
            metric
        });
        family.set_metric(metrics.collect());
        vec![family]
    }
}

impl Child {
    fn write(&self, metric: &mut Metric) {
        match self {
            Self::Tally(tally) => {
                let mut value = CounterValue::default();
                value.set_value(float(tally.get()));
                metric.set_counter(value);
            }
            Self::Level(level) => {
                let (mut value, now) = (GaugeValue::default(), level.get());
                // A reader may see the fall in one row before the rise in another.
                value.set_value(float(u64::try_from(now).unwrap_or(0)));
                metric.set_gauge(value);
            }
            Self::Times(times) => {
                let (buckets, count) = times.cumulated();
                let buckets = buckets.into_iter().map(|(bound, count)| {
                    let mut bucket = Bucket::default();
                    bucket.set_upper_bound(bound);
                    bucket.set_cumulative_count(count);
                    bucket
                });
                let mut value = HistogramValue::default();
                value.set_bucket(buckets.collect());
                value.set_sample_count(count);
                value.set_sample_sum(times.sum().as_secs_f64());
                metric.set_histogram(value);
            }
        }
    }
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "as Prometheus has it")]
const fn float(count: u64) -> f64 {
    count as f64
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
