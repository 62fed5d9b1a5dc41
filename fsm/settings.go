package fsm

import (
	"errors"
	"fmt"
	"time"
)

// ServiceDownPolicy says what happens when the primary's service is down on a live host.
type ServiceDownPolicy string

// The policies.
const (
	OnServiceDownRestart  ServiceDownPolicy = "restart"  // try to start it again in place, then fail over
	OnServiceDownFailover ServiceDownPolicy = "failover" // fail over at once
)

// RebuildPolicy says whether a node whose data is of no use is rebuilt without a person.
type RebuildPolicy string

// The policies. Settings of before there was one are RebuildAuto.
const (
	RebuildAuto   RebuildPolicy = "auto"
	RebuildManual RebuildPolicy = "manual"
)

// Settings are the thresholds and the policy by which all nodes judge alike. They live in the log. Every duration is a duration on one machine.
type Settings struct {
	Profile string `json:"profile"` // name of the timing profile they came from

	Lease      time.Duration `json:"lease"`       // length of a primary's lease: a lost host costs about this much
	Renew      time.Duration `json:"renew"`       // how often the primary renews: several times per lease
	RenewLimit time.Duration `json:"renew_limit"` // deadline of one renewal
	DriftPPM   int64         `json:"drift_ppm"`   // how much two machines' clock rates may differ, parts per million
	Guard      time.Duration `json:"guard"`       // longest a kernel write may be held up between reading the clock and taking effect
	Jiffies    time.Duration `json:"jiffies"`     // rounding of kernel timeouts: two jiffies at HZ=100

	Ping         time.Duration `json:"ping"`           // how often nodes look at each other
	Election     time.Duration `json:"election"`       // longest Raft election expected after the loss of a leader
	FailAfter    time.Duration `json:"fail_after"`     // hbd and mysqld of a node both out of reach for so long: failed
	AgentGrace   time.Duration `json:"agent_grace"`    // only hbd out of reach: looked at again for so long after the lease has run out
	HungAfter    time.Duration `json:"hung_after"`     // mysqld accepts no statement for so long: hung
	ReportMaxAge time.Duration `json:"report_max_age"` // an older report of a node is no evidence

	OnServiceDown   ServiceDownPolicy `json:"on_service_down"`
	RestartAttempts int               `json:"restart_attempts"` // per RestartWindow
	RestartWindow   time.Duration     `json:"restart_window"`
	RestartTimeout  time.Duration     `json:"restart_timeout"` // one attempt, crash recovery included

	SyncMinReplicas int           `json:"sync_min_replicas"` // so many acknowledgements are never given up: writes wait instead
	ShrinkAfter     time.Duration `json:"shrink_after"`      // a sync member that cannot acknowledge for so long leaves the set, if enough are left
	DegradeAfter    time.Duration `json:"degrade_after"`     // with too few members left for so long fewer acknowledgements are asked for

	OrderTimeout   time.Duration `json:"order_timeout"`   // one freeze, fence or release order
	ReleaseTimeout time.Duration `json:"release_timeout"` // switchover: pause at most so long, then roll back
	PrepareTimeout time.Duration `json:"prepare_timeout"` // switchover: candidate must be close within
	PromoteTimeout time.Duration `json:"promote_timeout"` // promoted node must serve within, else another is tried
	MaxUnapplied   int           `json:"max_unapplied"`   // switchover: the pause begins when the candidate has at most so many transactions to apply
	MaxTransaction time.Duration `json:"max_transaction"` // switchover refuses or waits while a client is in the middle of something older, whole seconds
	MaxBehind      time.Duration `json:"max_behind"`      // switchover refuses a candidate that lags more

	Rebuild     RebuildPolicy `json:"rebuild"`
	RebuildRate int64         `json:"rebuild_rate"` // bytes per second taken from a donor, 0 for no limit
}

// Drifted stretches a duration by the drift allowance, rounding up: what the grantor must wait for a lease of d on another machine.
func (s Settings) Drifted(d time.Duration) time.Duration {
	return d + time.Duration((int64(d)*s.DriftPPM+999_999)/1_000_000)
}

// Profile gives the settings of a timing profile: "lan" (default) or "fast".
func Profile(name string) (Settings, error) {
	s := Settings{
		Profile: "lan", Lease: 1200 * time.Millisecond, Renew: 200 * time.Millisecond, RenewLimit: 600 * time.Millisecond,
		DriftPPM: 10_000, Guard: 40 * time.Millisecond, Jiffies: 20 * time.Millisecond,
		Ping: 100 * time.Millisecond, Election: 900 * time.Millisecond, FailAfter: 600 * time.Millisecond, AgentGrace: 300 * time.Millisecond,
		HungAfter: 3 * time.Second, ReportMaxAge: 1500 * time.Millisecond,
		OnServiceDown: OnServiceDownRestart, RestartAttempts: 3, RestartWindow: 10 * time.Minute, RestartTimeout: 60 * time.Second,
		ShrinkAfter: 2 * time.Second, DegradeAfter: 10 * time.Second,
		OrderTimeout: 3 * time.Second, ReleaseTimeout: 3 * time.Second, PrepareTimeout: 10 * time.Second,
		PromoteTimeout: 30 * time.Second, MaxBehind: 5 * time.Second, MaxUnapplied: 20, MaxTransaction: time.Second, Rebuild: RebuildAuto,
	}
	switch name {
	case "", "lan":
		return s, nil
	case "fast":
		s.Profile = "fast"
		s.Lease, s.Renew, s.RenewLimit = 540*time.Millisecond, 60*time.Millisecond, 200*time.Millisecond
		s.Election = 420 * time.Millisecond
		s.Guard = 30 * time.Millisecond
		s.Ping, s.FailAfter, s.AgentGrace = 50*time.Millisecond, 300*time.Millisecond, 200*time.Millisecond
		s.HungAfter, s.ReportMaxAge = 1500*time.Millisecond, 800*time.Millisecond
		s.ShrinkAfter, s.DegradeAfter = time.Second, 5*time.Second
		return s, nil
	default:
		return Settings{}, fmt.Errorf("timing profile %q is not known: use lan or fast", name)
	}
}

// Validate refuses settings whose numbers cannot keep the guarantees. Each error names both sides of the relation that fails.
func (s Settings) Validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	need(s.Lease > 0, "lease must be positive, is %v", s.Lease)
	need(s.Renew > 0 && 3*s.Renew <= s.Lease, "renew must fit into the lease three times: 3 x %v = %v, lease is %v", s.Renew, 3*s.Renew, s.Lease)
	need(s.RenewLimit > 0 && s.RenewLimit <= s.Lease/2, "renew_limit %v must be at most half the lease %v", s.RenewLimit, s.Lease)
	need(s.DriftPPM >= 1_000 && s.DriftPPM <= 100_000, "drift_ppm must be 1000..100000 (0.1 %% to 10 %%), is %d", s.DriftPPM)
	overhead := s.Guard + s.Jiffies + s.Renew + s.RenewLimit
	need(s.Guard >= 10*time.Millisecond && s.Guard <= 100*time.Millisecond, "guard must be 10ms..100ms, is %v", s.Guard)
	need(s.Jiffies >= 20*time.Millisecond, "jiffies must be at least 20ms (two at HZ=100), is %v", s.Jiffies)
	need(overhead < s.Lease, "one missed renewal would close the gate: guard %v + jiffies %v + renew %v + renew_limit %v = %v, lease is %v",
		s.Guard, s.Jiffies, s.Renew, s.RenewLimit, overhead, s.Lease)
	need(s.Election+s.Renew+s.Guard+s.Jiffies < s.Lease, "losing the Raft leader would close a healthy primary's gate: election %v + renew %v + guard %v + jiffies %v = %v, lease is %v",
		s.Election, s.Renew, s.Guard, s.Jiffies, s.Election+s.Renew+s.Guard+s.Jiffies, s.Lease)
	need(s.Ping > 0 && 3*s.Ping <= s.FailAfter, "fail_after %v must hold three pings of %v", s.FailAfter, s.Ping)
	need(s.ReportMaxAge >= 2*s.Ping+s.FailAfter, "report_max_age %v must be at least two pings and fail_after: 2 x %v + %v = %v", s.ReportMaxAge, s.Ping, s.FailAfter, 2*s.Ping+s.FailAfter)
	need(s.HungAfter > s.FailAfter, "hung_after %v must be longer than fail_after %v", s.HungAfter, s.FailAfter)
	need(s.OnServiceDown == OnServiceDownRestart || s.OnServiceDown == OnServiceDownFailover, "on_service_down %q: use restart or failover", s.OnServiceDown)
	need(s.SyncMinReplicas >= 0, "sync.min_replicas must not be negative, is %d", s.SyncMinReplicas)
	need(s.ShrinkAfter >= s.FailAfter, "shrink_after %v must be at least fail_after %v", s.ShrinkAfter, s.FailAfter)
	need(s.DegradeAfter >= s.ShrinkAfter, "sync.degrade_after %v must be at least shrink_after %v", s.DegradeAfter, s.ShrinkAfter)
	need(s.RestartAttempts >= 1, "restart_attempts must be at least 1, is %d", s.RestartAttempts)
	need(s.ReleaseTimeout > 0 && s.OrderTimeout > 0 && s.PrepareTimeout > 0 && s.RestartTimeout > 0, "every timeout must be positive")
	need(s.Rebuild == "" || s.Rebuild == RebuildAuto || s.Rebuild == RebuildManual, "rebuild %q: use auto or manual", s.Rebuild)
	need(s.RebuildRate >= 0, "rebuild_rate must not be negative, is %d", s.RebuildRate)
	need(s.MaxTransaction >= 0, "max_transaction must not be negative, is %v", s.MaxTransaction)
	need(s.PromoteTimeout > s.Drifted(s.Lease), "promote_timeout %v must be longer than a lease with drift %v", s.PromoteTimeout, s.Drifted(s.Lease))
	return errors.Join(errs...)
}

// Budget prints the sum by which a lost host becomes a served address again, for status, logs and the error of a refused configuration.
func (s Settings) Budget() string {
	return fmt.Sprintf("lease %v x (1 + %d ppm) = %v until the old primary cannot serve; its kernel gate ends at least guard %v + jiffies %v earlier; failed after %v",
		s.Lease, s.DriftPPM, s.Drifted(s.Lease), s.Guard, s.Jiffies, s.FailAfter)
}
