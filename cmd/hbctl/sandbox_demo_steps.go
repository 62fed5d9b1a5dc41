package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

// unexpected is a promise that did not hold although the cluster came through: the demo has failed and goes on.
type unexpected struct{ text string }

func (e unexpected) Error() string { return e.text }

// crashServer kills the primary's server, which is to be started again in place.
func (d *demo) crashServer(ctx context.Context) error {
	primary, epoch, err := d.primary(ctx)
	if err != nil {
		return err
	}
	return d.incident(ctx, scene{
		fault: "server on " + primary + " killed", title: "The primary's server gets SIGKILL: kill-mysqld " + primary, kind: api.KindRestart,
		act:  func(ctx context.Context) error { return d.sb.Fault(ctx, "kill-mysqld", primary) },
		done: d.whole,
		held: func(in api.Incident, st api.Status) string {
			if st.Primary != primary || st.Epoch != epoch {
				return fmt.Sprintf("%s in epoch %d is primary, expected %s in epoch %d still", st.Primary, st.Epoch, primary, epoch)
			}
			return ""
		},
	})
}

// killHost takes the power from the primary's host. Another is to take over, the third to follow it.
func (d *demo) killHost(ctx context.Context) error {
	old, epoch, err := d.primary(ctx)
	if err != nil {
		return err
	}
	return d.incident(ctx, scene{
		fault: "host " + old + " killed", title: "The primary's host loses power: kill-host " + old, kind: api.KindTakeover,
		act: func(ctx context.Context) error { return d.sb.Fault(ctx, "kill-host", old) },
		done: func(st api.Status) bool {
			return st.Primary != old && settled(st) && d.following(st) == len(d.dataHosts())-2 && !reports(st, old)
		},
		held: func(in api.Incident, st api.Status) string {
			if in.From != old || in.To != st.Primary || st.Epoch <= epoch {
				return fmt.Sprintf("incident %d goes from %s to %s, and %s is primary in epoch %d after %d", in.ID, in.From, in.To, st.Primary, st.Epoch, epoch)
			}
			return ""
		},
	})
}

// switchBack makes the host that came back the primary again, as an operator would.
func (d *demo) switchBack(ctx context.Context) error {
	from, _, err := d.primary(ctx)
	if err != nil {
		return err
	}
	to := d.report.Steps[len(d.report.Steps)-1].To
	return d.incident(ctx, scene{
		fault: "none: planned", title: "An operator moves the primary back: hbctl promote " + to, kind: api.KindSwitchover,
		act: func(ctx context.Context) error {
			result, err := d.client.Promote(ctx, api.SwitchoverRequest{To: to, Actor: actor()})
			if err == nil && result.Running() {
				result, err = d.client.Follow(ctx, result, nil)
			}
			if err != nil {
				return fmt.Errorf("asking for a switchover to %s: %w", to, err)
			}
			if result.Outcome != api.OutcomeDone {
				return fmt.Errorf("switchover to %s: %s", to, strings.Join(strings.Fields(resultText(result)), " "))
			}
			return nil
		},
		done: func(st api.Status) bool { return st.Primary == to && d.whole(st) },
		held: func(in api.Incident, _ api.Status) string {
			if in.From != from || in.To != to {
				return fmt.Sprintf("incident %d goes from %s to %s, expected %s to %s", in.ID, in.From, in.To, from, to)
			}
			return ""
		},
	})
}

// startHost boots the killed host again, which is to become a replica by itself.
func (d *demo) startHost(ctx context.Context) error {
	host := d.report.Steps[len(d.report.Steps)-1].From
	ctx, cancel := stepContext(ctx)
	defer cancel()
	s := d.begin("host "+host+" started again", "The killed host gets its power back: start-host "+host)
	s.Decided, s.From, s.To = decidedRejoin, host, host
	wall := time.Now()
	if err := d.sb.Fault(ctx, "start-host", host); err != nil {
		return d.failed(s, err)
	}
	watch := stages{begin: wall, phases: []api.Phase{}}
	watch.reached("boot")
	st, err := d.awaitStatus(ctx, host+" to follow again", func(st api.Status) bool {
		if reports(st, host) {
			watch.reached("report")
		}
		if i := slices.IndexFunc(st.Nodes, func(n api.Node) bool { return n.ID == host && n.Server == api.ServerUp }); i >= 0 {
			watch.reached("server")
		}
		return d.whole(st)
	})
	s.Phases = watch.phases
	if err != nil {
		return d.failed(s, err)
	}
	watch.reached("follow")
	s.Phases, s.Epoch = watch.phases, st.Epoch
	s.Cause = fmt.Sprintf("%s is primary in epoch %d: %s gives up what nobody acknowledged and follows", st.Primary, st.Epoch, host)
	fresh, err := d.newIncidents(ctx)
	if err != nil {
		return d.failed(s, err)
	}
	return d.conclude(ctx, s, st, complaints(fresh))
}

// stages turns instants into phases.
type stages struct {
	begin  time.Time
	passed float64 // milliseconds of the phases so far
	phases []api.Phase
}

// reached notes the end of a phase, once.
func (s *stages) reached(name string) {
	for _, p := range s.phases {
		if p.Name == name {
			return
		}
	}
	now := msSince(s.begin)
	s.phases = append(s.phases, api.Phase{Name: name, MS: now - s.passed})
	s.passed = now
}

// scene is a step that ends in an incident.
type scene struct {
	fault, title, kind string
	act                func(context.Context) error
	done               func(api.Status) bool                 // the cluster has come through
	held               func(api.Incident, api.Status) string // what did not hold, "" if all did
}

// incident plays a scene and tells what was decided.
func (d *demo) incident(ctx context.Context, sc scene) error {
	ctx, cancel := stepContext(ctx)
	defer cancel()
	s := d.begin(sc.fault, sc.title)
	wall := time.Now()
	if err := sc.act(ctx); err != nil {
		return d.failed(s, err)
	}
	st, fresh, err := d.awaitIncident(ctx, "the "+sc.kind+" to be over", sc.done)
	if err != nil {
		return d.failed(s, err)
	}
	var others []api.Incident
	var main *api.Incident
	for i, in := range fresh {
		d.last = in.ID
		if in.Kind == sc.kind && main == nil {
			main = &fresh[i]
		} else {
			others = append(others, in)
		}
	}
	problems := complaints(others)
	if main == nil {
		main = &fresh[0]
		problems = append(problems, fmt.Sprintf("a %s was decided, expected a %s", main.Kind, sc.kind))
	} else if text := sc.held(*main, st); text != "" {
		problems = append(problems, text)
	}
	if main.Outcome != api.OutcomeDone {
		problems = append(problems, fmt.Sprintf("the %s ended as %s", main.Kind, main.Outcome))
	}
	s.tell(*main, wall)
	return d.conclude(ctx, s, st, problems)
}

// complaints are the incidents that nobody asked for.
func complaints(incidents []api.Incident) []string {
	var texts []string
	for _, in := range incidents {
		texts = append(texts, fmt.Sprintf("unexpected: incident %d, a %s from %s to %s (%s), because %s", in.ID, in.Kind, in.From, in.To, in.Outcome, in.Cause))
	}
	return texts
}

// begin opens a step of the report. The clients' clock says when.
func (d *demo) begin(fault, title string) *demoStep {
	d.report.Steps = append(d.report.Steps, demoStep{Fault: fault, Phases: []api.Phase{}, Replicas: len(d.dataHosts()) - 1})
	d.begun = append(d.begun, d.load.Now())
	d.say.head("%d. %s", len(d.report.Steps), title)
	return &d.report.Steps[len(d.report.Steps)-1]
}

// failed closes a step that did not come to its end.
func (d *demo) failed(s *demoStep, err error) error {
	s.Problem = err.Error()
	s.WriteGapMS = d.gap()
	d.say.bad(s.Problem)
	return fmt.Errorf("step %d (%s): %w", len(d.report.Steps), s.Fault, err)
}

// conclude waits for writes, measures the gap and tells the step.
func (d *demo) conclude(ctx context.Context, s *demoStep, st api.Status, problems []string) error {
	if err := d.moreWrites(ctx); err != nil {
		return d.failed(s, err)
	}
	s.WriteGapMS, s.Following, s.Problem = d.gap(), d.following(st), strings.Join(problems, "; ")
	d.say.step(*s, st, d.load.Counts().Acknowledged)
	if len(problems) > 0 {
		return unexpected{fmt.Sprintf("step %d (%s): %s", len(d.report.Steps), s.Fault, s.Problem)}
	}
	return nil
}

// gap is the longest silence since the step began, in milliseconds.
func (d *demo) gap() float64 {
	return float64(d.load.Gap(d.begun[len(d.begun)-1], d.load.Now()).Microseconds()) / 1000
}

func (d *demo) primary(ctx context.Context) (string, uint64, error) {
	st, err := d.client.Status(ctx)
	return st.Primary, st.Epoch, err
}

func stepContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, demoStepLimit, fmt.Errorf("not there after %v", demoStepLimit))
}

// check stops the clients and compares what they were told with what every server holds.
func (d *demo) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, demoCheckLimit, fmt.Errorf("not so after %v", demoCheckLimit))
	defer cancel()
	d.load.Stop()
	d.say.head("Every server is asked for every acknowledged write")
	copies, err := d.load.Check(ctx, d.dataHosts())
	st, statusErr := d.client.Status(ctx)
	d.report.count(d.load, d.begun, copies)
	d.report.nodes(st, copies)
	var problems []error
	if err != nil {
		problems = append(problems, fmt.Errorf("comparing the servers: %w", err))
	}
	if statusErr != nil {
		problems = append(problems, fmt.Errorf("asking who follows: %w", statusErr))
	} else if !d.whole(st) {
		problems = append(problems, fmt.Errorf("at the end the cluster is not whole: %s", statusLine(st)))
	}
	if lost := sandbox.Lost(copies); len(lost) > 0 {
		problems = append(problems, fmt.Errorf("%d acknowledged writes are lost, the first by writer %d with number %d", len(lost), lost[0].Writer, lost[0].Seq))
	}
	for _, c := range copies {
		d.say.line(c.Host, "%d rows, %d acknowledged ones missing", c.Rows, len(c.Lost))
	}
	return errors.Join(problems...)
}
