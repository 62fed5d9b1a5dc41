package cluster

import (
	"log/slog"
	"sync"
	"time"

	"github.com/highbase/highbase/fsm"
)

// stats is what this node counted and timed since it started. Nothing in it is decided by, but for the progress a node reports to the leader.
type stats struct {
	mu            sync.Mutex
	servedIndex   uint64
	failedIndex   uint64
	failedReason  string
	phases        []fsm.PhaseTime
	announcedFor  uint64 // epoch announced since the gate opened, 0 for none
	err           string
	notes         map[string]string
	starts        uint64
	rewinds       uint64
	offices       uint64
	renewals      uint64
	renewFailures uint64
	renewLast     time.Duration
}

func newStats() *stats { return &stats{notes: map[string]string{}} }

func (s *stats) progress() (served, failed uint64, reason string, phases []fsm.PhaseTime) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.servedIndex, s.failedIndex, s.failedReason, append([]fsm.PhaseTime(nil), s.phases...)
}

// phase records how long a part of a promotion or restart took, the newest value for each name.
func (s *stats) phase(name string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.phases {
		if s.phases[i].Name == name {
			s.phases[i].Took = took
			return
		}
	}
	s.phases = append(s.phases, fsm.PhaseTime{Name: name, Took: took})
}

func (s *stats) served(index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.servedIndex = index
}

func (s *stats) startFailed(index uint64, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failedIndex, s.failedReason = index, reason
}

func (s *stats) started() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts++
	s.phases = nil
}

func (s *stats) rewound() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rewinds++
}

func (s *stats) tookOffice() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offices++
}

func (s *stats) renewal(took time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok {
		s.renewFailures++
		return
	}
	s.renewals++
	s.renewLast = took
}

func (s *stats) announced(epoch uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return epoch > 0 && s.announcedFor == epoch
}

func (s *stats) setAnnounced(epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announcedFor = epoch
}

// gateClosed: whoever opens it next announces again.
func (s *stats) gateClosed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announcedFor = 0
}

// acted keeps the last action's failure until one succeeds.
func (s *stats) acted(a fsm.Action, err error, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = ""
	if err != nil {
		s.err = string(a.Kind) + ": " + err.Error()
	}
	if a.Kind == fsm.ActStopFollow && err == nil {
		s.phases = []fsm.PhaseTime{{Name: "drain", Took: took}}
	}
}

func (s *stats) lastError() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// note logs a condition when it changes, not each time it is met.
func (s *stats) note(log *slog.Logger, what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.notes[what] != err.Error() {
		s.notes[what] = err.Error()
		log.Warn(what, "error", err.Error())
	}
}
