package httpd

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/highbase/highbase/cluster/api"
)

// The values of the state sets and pre-created labels: every series exists from the first scrape, so
// that a rate or an alert never meets a series that was not there.
var (
	roles = []string{api.RolePrimary, api.RoleReplica, api.RoleWitness, api.RoleJoining, api.RoleRebuilding,
		api.RoleQuarantined, api.RoleFenced}
	modes         = []string{"auto", "observe", "paused"}
	phases        = []string{api.PhaseNone, api.PhaseSteady, api.PhaseRestarting, api.PhaseFencing, api.PhasePromoting, api.PhaseSettling}
	kinds         = []string{api.KindRestart, api.KindFailover, api.KindTakeover, api.KindSwitchover, api.KindHandover}
	rebuildCauses = []string{"errant", "purged", "quarantined", "empty", "asked"}
	ends          = []string{ResultDone, ResultRolledBack, ResultRefused, ResultStuck}
)

// metric is one metric family: its description and how to read it from a Local.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	emit func(l Local, put func(v float64, labels ...string))
}

// family describes one metric family named highbase_<name>.
func family(name, help string, kind prometheus.ValueType, labels []string, emit func(Local, func(float64, ...string))) metric {
	return metric{desc: prometheus.NewDesc("highbase_"+name, help, labels, nil), kind: kind, emit: emit}
}

// gauge is a gauge without labels.
func gauge(name, help string, value func(Local) float64) metric {
	return family(name, help, prometheus.GaugeValue, nil, func(l Local, put func(float64, ...string)) { put(value(l)) })
}

// stateSet is one series per state, 1 for the one that holds.
func stateSet(name, help, label string, states []string, current func(Local) string) metric {
	return family(name, help, prometheus.GaugeValue, []string{label}, func(l Local, put func(float64, ...string)) {
		now := current(l)
		for _, s := range states {
			put(bit(s == now), s)
		}
	})
}

// perVIP is one series per virtual address.
func perVIP(name, help string, kind prometheus.ValueType, value func(VIP) float64) metric {
	return family(name, help, kind, []string{"vip"}, func(l Local, put func(float64, ...string)) {
		for _, v := range l.VIPs {
			put(value(v), v.Address)
		}
	})
}

// ofServer is a gauge of nodes that have a database server; a witness has no such series.
func ofServer(name, help string, kind prometheus.ValueType, value func(Local) float64) metric {
	return family(name, help, kind, nil, func(l Local, put func(float64, ...string)) {
		if l.Server.Present {
			put(value(l))
		}
	})
}

// collector reads one Local per scrape and prints it.
type collector struct {
	backend    Backend
	metrics    []metric
	phaseTimes *prometheus.Desc
	writeGaps  *prometheus.Desc
}

func newCollector(cfg Config) *collector {
	all := append(stateMetrics(), nodeMetrics()...)
	all = append(all, operationMetrics()...)
	all = append(all, family("build_info", "The build of hbd that runs here; the value is always 1.", prometheus.GaugeValue,
		[]string{"version", "revision"}, func(_ Local, put func(float64, ...string)) { put(1, cfg.Version, cfg.Revision) }))
	return &collector{
		backend: cfg.Backend,
		metrics: all,
		phaseTimes: prometheus.NewDesc("highbase_operation_phase_duration_seconds",
			"Time taken by the phases of the operations of the cluster; every node counts all of them.", []string{"phase"}, nil),
		writeGaps: prometheus.NewDesc("highbase_write_gap_seconds",
			"Time from the last write acknowledged before an operation to the first one after it.", []string{"kind"}, nil),
	}
}

// Describe lists the families, so that the registry refuses a name used twice at start and not at the
// first scrape.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		ch <- m.desc
	}
	ch <- c.phaseTimes
	ch <- c.writeGaps
}

// Collect prints one Local.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	l := c.backend.Local()
	for _, m := range c.metrics {
		m.emit(l, func(v float64, labels ...string) {
			out, err := prometheus.NewConstMetric(m.desc, m.kind, v, labels...)
			if err != nil {
				out = prometheus.NewInvalidMetric(m.desc, err)
			}
			ch <- out
		})
	}
	emitHistograms(ch, c.phaseTimes, phaseNames, l.Phases)
	emitHistograms(ch, c.writeGaps, kinds, l.WriteGaps)
}

// emitHistograms prints the histograms of the known labels, empty where there are none, and any others.
func emitHistograms(ch chan<- prometheus.Metric, desc *prometheus.Desc, known []string, values map[string]Histogram) {
	labels := map[string]bool{}
	for _, k := range known {
		labels[k] = true
	}
	for k := range values {
		labels[k] = true
	}
	for label := range labels {
		h := values[label]
		out, err := prometheus.NewConstHistogram(desc, h.Count, h.Sum, h.buckets(), label)
		if err != nil {
			out = prometheus.NewInvalidMetric(desc, err)
		}
		ch <- out
	}
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// timestamp is t as seconds since 1970, 0 for the zero value.
func timestamp(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}

// secondsOrNaN is NaN for what is unknown or does not apply: a lag of 0 would be a claim.
func secondsOrNaN(d *time.Duration) float64 {
	if d == nil {
		return math.NaN()
	}
	return d.Seconds()
}
