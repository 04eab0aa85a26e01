//! What the digest measures of itself, in the text format of Prometheus.
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds of the commit latency: from a fast disk to what people notice.
const LATENCY_BOUNDS_US: [u64; 11] = [
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
];
const MICROS_PER_SECOND: f64 = 1e6;
/// Bounds of the batch size, up to the largest batch.
const BATCH_BOUNDS: [u64; 9] = [1, 4, 16, 32, 64, 128, 256, 512, 1024];

/// Counters of one digest since it started.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) stored: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) new_issues: AtomicU64,
    pub(crate) alerts: AtomicU64,
    pub(crate) refused_full: AtomicU64,
    pub(crate) refused_unavailable: AtomicU64,
    pub(crate) refused_event: AtomicU64,
    pub(crate) failed_commits: AtomicU64,
    pub(crate) commit_latency: Histogram<11>,
    pub(crate) batch_events: Histogram<9>,
}

/// Counts per bound; the sum is of the observed numbers.
#[derive(Debug)]
pub(crate) struct Histogram<const N: usize> {
    counts: [AtomicU64; N],
    above: AtomicU64,
    sum: AtomicU64,
}

/// A measure that is read when it is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gauge {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) value: u64,
}

pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Histogram<N> {
        Histogram {
            counts: std::array::from_fn(|_| AtomicU64::default()),
            above: AtomicU64::default(),
            sum: AtomicU64::default(),
        }
    }
}

impl<const N: usize> Histogram<N> {
    fn observe(&self, bounds: &[u64; N], value: u64) {
        let slot = bounds.iter().position(|bound| value <= *bound);
        let count = slot.map_or(&self.above, |slot| &self.counts[slot]);
        count.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Writes the cumulative counts; `unit` is how many of the observed numbers make one of the unit.
    fn render(&self, text: &mut String, name: &str, help: &str, bounds: &[u64; N], unit: f64) {
        header(text, name, help, "histogram");
        let mut total = 0;
        for (count, bound) in self.counts.iter().zip(bounds) {
            total += count.load(Ordering::Relaxed);
            let bound = *bound as f64 / unit;
            line(
                text,
                format_args!("{name}_bucket{{le=\"{bound}\"}} {total}"),
            );
        }
        total += self.above.load(Ordering::Relaxed);
        let sum = self.sum.load(Ordering::Relaxed) as f64 / unit;
        line(text, format_args!("{name}_bucket{{le=\"+Inf\"}} {total}"));
        line(text, format_args!("{name}_sum {sum}"));
        line(text, format_args!("{name}_count {total}"));
    }
}

impl Metrics {
    pub(crate) fn committed(&self, events: usize, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commit_latency.observe(&LATENCY_BOUNDS_US, micros);
        self.batch_events.observe(&BATCH_BOUNDS, events as u64);
    }

    /// Writes everything in the text format.
    pub(crate) fn render(&self, gauges: &[Gauge]) -> String {
        let mut text = String::new();
        header(
            &mut text,
            "backstop_events_total",
            "Events by what the digest did with them.",
            "counter",
        );
        let outcomes = [
            ("stored", &self.stored),
            ("duplicate", &self.duplicates),
            ("refused_queue_full", &self.refused_full),
            ("refused_store_unavailable", &self.refused_unavailable),
            ("refused_event", &self.refused_event),
        ];
        for (outcome, count) in outcomes {
            let count = count.load(Ordering::Relaxed);
            line(
                &mut text,
                format_args!("backstop_events_total{{outcome=\"{outcome}\"}} {count}"),
            );
        }
        let counters = [
            ("backstop_new_issues_total", "New issues.", &self.new_issues),
            (
                "backstop_alerts_due_total",
                "Alerts that became due.",
                &self.alerts,
            ),
            (
                "backstop_failed_commits_total",
                "Commits that the store refused.",
                &self.failed_commits,
            ),
        ];
        for (name, help, count) in counters {
            header(&mut text, name, help, "counter");
            line(
                &mut text,
                format_args!("{name} {}", count.load(Ordering::Relaxed)),
            );
        }
        self.commit_latency.render(
            &mut text,
            "backstop_commit_duration_seconds",
            "Time from taking a batch to its commit, also of commits that failed.",
            &LATENCY_BOUNDS_US,
            MICROS_PER_SECOND,
        );
        self.batch_events.render(
            &mut text,
            "backstop_commit_events",
            "Events per commit.",
            &BATCH_BOUNDS,
            1.0,
        );
        for gauge in gauges {
            header(&mut text, gauge.name, gauge.help, "gauge");
            line(&mut text, format_args!("{} {}", gauge.name, gauge.value));
        }
        text
    }
}

/// Writes one counter that is told apart by a label.
///
/// The labels are words of this program, so they need no escaping and are few.
pub(crate) fn render_counts<'a>(
    text: &mut String,
    name: &str,
    help: &str,
    counts: impl Iterator<Item = (&'a str, &'a str, u64)>,
) {
    header(text, name, help, "counter");
    for (outcome, reason, count) in counts {
        line(
            text,
            format_args!("{name}{{outcome=\"{outcome}\",reason=\"{reason}\"}} {count}"),
        );
    }
}

/// Writes what every program tells of itself, under the names that all use.
pub(crate) fn render_process(text: &mut String) {
    let name = "backstop_build_info";
    header(text, name, "Constant 1; the version is a label.", "gauge");
    let version = env!("CARGO_PKG_VERSION");
    line(text, format_args!("{name}{{version=\"{version}\"}} 1"));
    // Only Linux has this file; elsewhere the measure is missing rather than wrong.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
    if let Some(kib) = resident.and_then(|kib| kib.trim().parse::<u64>().ok()) {
        let name = "process_resident_memory_bytes";
        header(text, name, "Resident memory size in bytes.", "gauge");
        line(text, format_args!("{name} {}", kib * 1024));
    }
}

fn header(text: &mut String, name: &str, help: &str, kind: &str) {
    line(text, format_args!("# HELP {name} {help}"));
    line(text, format_args!("# TYPE {name} {kind}"));
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes every text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative() {
        let metrics = Metrics::default();
        metrics.committed(3, Duration::from_millis(4));
        metrics.committed(2000, Duration::from_millis(40));
        let text = metrics.render(&[Gauge {
            name: "backstop_queue_events",
            help: "Events that wait.",
            value: 7,
        }]);
        for line in [
            "backstop_commit_duration_seconds_bucket{le=\"0.002\"} 0",
            "backstop_commit_duration_seconds_bucket{le=\"0.005\"} 1",
            "backstop_commit_duration_seconds_bucket{le=\"0.05\"} 2",
            "backstop_commit_duration_seconds_bucket{le=\"+Inf\"} 2",
            "backstop_commit_duration_seconds_sum 0.044",
            "backstop_commit_events_bucket{le=\"1024\"} 1",
            "backstop_commit_events_bucket{le=\"+Inf\"} 2",
            "backstop_events_total{outcome=\"stored\"} 0",
            "# TYPE backstop_commit_duration_seconds histogram",
            "backstop_queue_events 7",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
    }
}
