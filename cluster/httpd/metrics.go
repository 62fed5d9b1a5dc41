package httpd

import (
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// requestMetrics count what this package itself sees; everything else comes from Local on each scrape.
type requestMetrics struct {
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// newRegistry makes a registry of its own, so that no other package's globals show up on our page and
// two servers can live in one test.
func newRegistry(cfg Config) (*prometheus.Registry, *requestMetrics, error) {
	requests := &requestMetrics{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "highbase_http_requests_total", Help: "HTTP requests answered, by route and status code.",
		}, []string{"route", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "highbase_http_request_duration_seconds", Help: "Time to answer an HTTP request, long polls included, by route.",
			Buckets: Buckets[:],
		}, []string{"route"}),
	}
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		requests.total, requests.duration,
		newCollector(cfg),
	} {
		if err := registry.Register(c); err != nil {
			return nil, nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return registry, requests, nil
}

// instrument counts the requests of one route. The route is the pattern, never the path: a stranger
// must not be able to make series.
func (s *Server) instrument(route string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		begin := time.Now()
		defer func() {
			s.requests.duration.WithLabelValues(route).Observe(time.Since(begin).Seconds())
			s.requests.total.WithLabelValues(route, strconv.Itoa(rec.status)).Inc()
		}()
		next.ServeHTTP(rec, r)
	})
}

// statusRecorder remembers the status of an answer.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (w *statusRecorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// promLog hands promhttp's complaints to slog.
type promLog struct{ log *slog.Logger }

func (p promLog) Println(v ...any) { p.log.Error("serving metrics", "error", fmt.Sprint(v...)) }
