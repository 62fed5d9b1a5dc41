package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/highbase/highbase/fsm"
)

const strangerMend = "switch its semi-sync off (rpl_semi_sync_slave_enabled, rpl_semi_sync_replica_enabled) and restart its replication"

// heardFrom notes that somebody acknowledged and was blocked, or why not. It returns for how long it is kept out.
func (s *strangers) heardFrom(addr netip.Addr, at fsm.Instant, failed error) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[netip.Addr]stranger{}
	}
	e := s.known[addr]
	e.seen, e.why = at, errText(failed)
	if failed == nil && !e.out {
		if at > e.until+maxStrangerPause {
			e.times = 0 // another occasion
		}
		e.out, e.until = true, at+min(strangerPause<<e.times, maxStrangerPause)
		e.times = min(e.times+1, 10)
	}
	s.known[addr] = e
	if !e.out {
		return 0
	}
	return e.until - at
}

// are takes over who is blocked in truth: somebody else may have let one in, and an earlier run of hbd may have left one, whose time begins anew.
func (s *strangers) are(blocked []netip.Addr, at fsm.Instant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range blocked {
		if e := s.known[a]; !e.out {
			if s.known == nil {
				s.known = map[netip.Addr]stranger{}
			}
			e.out, e.why, e.until = true, "", at+strangerPause
			s.known[a] = e
		}
	}
	for a, e := range s.known {
		if !slices.Contains(blocked, a) {
			e.out = false
			s.known[a] = e
		}
		if !e.out && at > max(e.until, e.seen)+maxStrangerPause {
			delete(s.known, a)
		}
	}
}

// due tells whether somebody has been kept out for long enough.
func (s *strangers) due(addr netip.Addr, at fsm.Instant) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.known[addr]
	return e.out && at >= e.until
}

func (s *strangers) wasLetIn(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, known := s.known[addr]; known {
		e.out, e.trial = false, trialLooks
		s.known[addr] = e
	}
}

// trialLooks: it connects anew, is seen, and is heard.
const trialLooks = 10

// looked counts a look that succeeded. The caller holds mu.
func (s *strangers) looked() {
	for a, e := range s.known {
		if e.trial > 0 {
			e.trial--
			s.known[a] = e
		}
	}
}

// onTrial are those that were let in and may not have been heard yet.
func (s *strangers) onTrial() []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []netip.Addr
	for a, e := range s.known {
		if !e.out && e.trial > 0 {
			out = append(out, a)
		}
	}
	return out
}

// problems names in words who is kept out, or should be.
func (s *strangers) problems(at fsm.Instant) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for addr, e := range s.known {
		what := "it is kept out"
		switch {
		case e.out:
		case e.why != "" && at < e.seen+strangerPause:
			what = "acknowledged writes may rest on it alone: " + e.why
		default:
			continue
		}
		out = append(out, fmt.Sprintf("a replica at %s is none of the cluster's and acknowledged commits: %s; %s (docs/runbooks/stranger.md)", addr, what, strangerMend))
	}
	slices.Sort(out)
	return out
}
